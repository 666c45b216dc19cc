"""Formulas, written once: straight-line arithmetic over a small table of named primitives.

A formula is a factory: `def black_scholes(ops)` takes the primitives it needs from `ops` (a module or record
with the names below) and returns plain functions of float64 values. The same source runs on whole NumPy
arrays, is compiled by numba for one row inside a loop that LLVM vectorises, is transpiled to CUDA C++ by
cupyx.jit and traced by JAX. So that all of them take it: no branches (`where` instead), no loops (they
belong to engines), no nested functions inside the returned ones, no defaults or keyword arguments, no
lambdas, tuples as results.

The primitives, one-argument unless noted; each engine's `ops.py` has them all:

==================  ======================================================================================
exp                 e^x to 1 ulp; below -708 it may be 0 (no subnormal results are needed)
expm1               e^x - 1, relative accuracy for small x
expm1_parts         the same as the sum of two numbers, a float64 and what it leaves, to 56 bits of the larger
                    of 1 and e^x
log                 natural logarithm of a positive normal number, relative accuracy near 1
log_ratio(a, b)     log(a / b) with relative accuracy also where a is close to b; both positive and normal
log_ratio_parts     (a, b): the same as the sum of two numbers, a float64 and what it leaves
sqrt                square root, correctly rounded
absolute            |x|
minimum(a, b)       the smaller of two numbers that are not NaN
maximum(a, b)       the larger of two numbers that are not NaN
where(c, a, b)      a if c else b; both are computed
npdf                density of the standard normal
ndtr                its distribution function, relative accuracy in the lower tail
fma(a, b, c)        a*b + c rounded once (a Dekker product does where there is no such instruction)
rounded             x: a product on which a decision depends. An engine that computes it once for each use may
                    not fuse it with a sum in one place and not in another, or the decisions differ
function            how a function that a factory defines becomes one that other functions can call
==================  ======================================================================================
"""
