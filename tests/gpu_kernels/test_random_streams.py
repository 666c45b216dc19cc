"""Random streams: known answers, the same bits everywhere, normals to 4 ulp, the nets of Sobol points."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.stats import qmc

import gpu_kernels as gk
from gpu_kernels import random_streams

# A bare CUDA machine has no mpmath.
mpmath = pytest.importorskip("mpmath")


@pytest.fixture
def seed(seed: int) -> int:
    """One that needs both words of the generator's key."""
    return seed << 30 | seed


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ],
)
def test_philox_known_answers(counter: tuple[int, ...], key: tuple[int, int], words: tuple[int, ...]) -> None:
    """The vectors that Random123 publishes for philox4x32 with 10 rounds."""
    found = random_streams.philox_4x32(tuple(np.array([c], np.uint64) for c in counter), key)
    assert tuple(int(w[0]) for w in found) == words


@pytest.mark.parametrize("draw", [random_streams.philox_uniforms, random_streams.sobol_uniforms])
def test_any_block_is_the_same_part_of_the_whole(draw, seed: int) -> None:
    whole = draw(seed, 0, 3000, 7)
    assert np.array_equal(draw(seed, 1017, 1500, 7), whole[1017:2517])
    assert np.array_equal(draw(seed, 0, 3000, 5), whole[:, :5])
    assert not np.array_equal(draw(seed + 1, 0, 3000, 7), whole)
    assert whole.min() > 0.0
    assert whole.max() < 1.0


@pytest.mark.parametrize("draw", [random_streams.philox_uniforms, random_streams.sobol_uniforms])
def test_jax_gives_the_same_bits(draw, seed: int) -> None:
    jax = pytest.importorskip("jax")
    with jax.enable_x64(True):
        found = draw(seed, 5, 2000, 6, xp=jax.numpy)
        assert np.array_equal(np.asarray(found), draw(seed, 5, 2000, 6))


@pytest.mark.gpu
@pytest.mark.parametrize("draw", [random_streams.philox_uniforms, random_streams.sobol_uniforms])
def test_cuda_gives_the_same_bits(draw, seed: int) -> None:
    cupy = pytest.importorskip("cupy")
    try:
        cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        pytest.skip(str(error))
    found = draw(seed, 5, 2000, 6, xp=cupy)
    assert np.array_equal(cupy.asnumpy(found), draw(seed, 5, 2000, 6))


def test_philox_streams_are_apart_and_uniform(seed: int) -> None:
    one = random_streams.philox_uniforms(seed, 0, 20_000, 3)
    other = random_streams.philox_uniforms(seed, 0, 20_000, 3, stream=1)
    assert abs(np.corrcoef(one[:, 0], other[:, 0])[0, 1]) < 0.05
    assert abs(np.corrcoef(one[:, 0], one[:, 1])[0, 1]) < 0.05
    for column in one.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-5


def test_directions_are_those_of_another_implementation() -> None:
    """Unscrambled points against SciPy's (Gray code order there: sets are compared, block by block)."""
    points = qmc.Sobol(300, scramble=False, bits=30).random(256)
    ours = random_streams._xor_of_bits(np.arange(256, dtype=np.uint64), random_streams._directions(300))
    ours = ours.astype(float) * 2.0**-random_streams.UNIFORM_BITS
    gray = np.arange(256) ^ (np.arange(256) >> 1)
    assert np.array_equal(points, ours[gray])


def test_a_power_of_two_of_points_is_stratified_in_each_dimension(seed: int) -> None:
    points = random_streams.sobol_uniforms(seed, 0, 4096, 40)
    for column in points.T:
        assert np.array_equal(np.sort((column * 4096).astype(int)), np.arange(4096))


def test_the_first_two_dimensions_are_a_net(seed: int) -> None:
    """Every dyadic box of volume 2^-10 holds as many of 2^12 points: 4."""
    points = random_streams.sobol_uniforms(seed, 0, 4096, 2)
    for split in range(11):
        across = (points[:, 0] * 2**split).astype(int)
        along = (points[:, 1] * 2 ** (10 - split)).astype(int)
        counts = np.bincount(across * 2 ** (10 - split) + along, minlength=1024)
        assert (counts == 4).all()


def test_a_scrambled_point_is_uniform(seed: int) -> None:
    first = [random_streams.sobol_uniforms(seed + i, 3, 1, 2)[0] for i in range(400)]
    for column in np.array(first).T:
        assert stats.kstest(column, "uniform").pvalue > 1e-5


def test_normals_to_4_ulp(seed: int) -> None:
    bits = np.random.default_rng(seed).integers(0, 1 << 52, 600)
    bits = np.concatenate([bits, [0, 1, 2, (1 << 52) - 1, 1 << 51, (1 << 51) + 1, 10**6, 10**10]])
    edges = np.array([0.075, 0.925]) * 2**52
    bits = np.concatenate([bits, np.concatenate([edges.astype(int) + d for d in range(-3, 4)])])
    uniforms = (bits + 0.5) * 2.0**-52
    found = random_streams.normals(uniforms)
    with mpmath.workdps(40):
        for u, x in zip(uniforms, found, strict=True):
            # One Newton step from a value this close squares its error: it is exact to 30 digits.
            start = mpmath.mpf(float(x))
            lower = mpmath.mpf(float(u))
            exact = start - (mpmath.ncdf(start) - lower) / mpmath.npdf(start)
            # The worst of 40,000 drawn was 2.9.
            assert abs(exact - start) <= 4 * np.spacing(abs(float(x)))


def test_bad_input_is_named() -> None:
    for call, field in (
        (lambda: random_streams.philox_uniforms(-1, 0, 1, 1), "seed"),
        (lambda: random_streams.philox_uniforms(1 << 64, 0, 1, 1), "seed"),
        (lambda: random_streams.sobol_uniforms(0, 0, 1, 1025), "columns"),
        (lambda: random_streams.sobol_uniforms(0, 1 << 32, 1, 1), "rows"),
    ):
        with pytest.raises(gk.InvalidInput) as caught:
            call()
        assert caught.value.field == field
