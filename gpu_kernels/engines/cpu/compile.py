"""How the CPU engine's functions are compiled, and the disk cache that outlives the process.

numba's own disk cache watches only the file of the kernel itself: after an edit of a formula or a primitive
in another file it would run the old machine code. Here the key is a hash of every source file the kernel is
built from: its own module and all modules of this package that it imports, directly or not.

Processes share the cache, and numba makes that unsafe in two ways, both mended here. It numbers functions
from 1 in every process and puts the number in the name of the machine code: two variants of one inner
function, compiled by two processes, may have one name, and a third process that loads both kernels runs one
variant for both. And two processes that save variants of one kernel at the same moment may take one file
for both.
"""

from __future__ import annotations

import ast
import hashlib
import itertools
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from numba import njit
from numba.core.bytecode import FunctionIdentity
from numba.core.caching import (
    CompileResultCacheImpl,
    FunctionCache,
    IndexDataCacheFile,
    InTreeCacheLocator,
    UserProvidedCacheLocator,
    UserWideCacheLocator,
)

try:
    import fcntl
except ImportError:  # not on Windows; there the last one to save wins
    fcntl = None  # type: ignore[assignment]

# No two processes number alike.
FunctionIdentity._unique_ids = itertools.count(secrets.randbits(48))

# `contract` lets a*b + c become one fused operation. Never `reassoc`, which folds the rounding trick of exp
# away, nor `nnan`, which would let the compiler drop NaN as a signal.
FASTMATH = frozenset({"contract", "nsz"})


def inline(function: Callable[..., Any]) -> Any:
    """A function that is pasted into the kernels that call it; formulas and primitives are compiled so."""
    return njit(inline="always", fastmath=set(FASTMATH))(function)


def kernel(function: Callable[..., Any]) -> Any:
    """A serial loop over rows, free of the interpreter lock, cached on disk by a hash of its sources."""
    dispatcher: Any = njit(nogil=True, fastmath=set(FASTMATH), error_model="numpy")(function)
    make_cache: Any = _SourceKeyedCache
    dispatcher._cache = make_cache(function)
    return dispatcher


def is_cached(dispatcher: Any) -> bool:
    """Whether the disk cache has machine code of a kernel, made from the sources as they are now."""
    return bool(dispatcher.overloads) or bool(dispatcher._cache._cache_file._load_index())


def sources_of(path: Path) -> tuple[Path, ...]:
    """The file and every file of its top package that it imports, directly or not, sorted."""
    start = path.resolve()
    root = _package_root(start)
    seen: set[Path] = set()
    waiting = [start]
    while waiting:
        one = waiting.pop()
        if one not in seen:
            seen.add(one)
            waiting.extend(_imports_of(one, root))
    return tuple(sorted(seen))


def source_key(path: Path) -> str:
    """A hash over the names and contents of all sources of a kernel's file."""
    digest = hashlib.sha256()
    root = _package_root(path.resolve()).parent
    for source in sources_of(path):
        digest.update(str(source.relative_to(root)).encode())
        digest.update(hashlib.sha256(source.read_bytes()).digest())
    return digest.hexdigest()


def _package_root(path: Path) -> Path:
    root = path.parent
    while (root.parent / "__init__.py").exists():
        root = root.parent
    return root


def _imports_of(path: Path, root: Path) -> list[Path]:
    files = (_file_of(name, root) for name in _names_imported(path.read_bytes()))
    return [file for file in files if file is not None]


@lru_cache(maxsize=512)
def _names_imported(source: bytes) -> tuple[str, ...]:
    """By its text: kernels share most of their sources, and to parse each anew would be most of a start."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.extend((node.module, *(f"{node.module}.{alias.name}" for alias in node.names)))
    return tuple(names)


def _file_of(name: str, root: Path) -> Path | None:
    first, _, rest = name.partition(".")
    # A kernel is not built from the package's front door or from folders' descriptions.
    if first != root.name or not rest:
        return None
    path = root.joinpath(*rest.split(".")).with_suffix(".py")
    return path if path.exists() else None


@cache
def _key_of_file(py_file: str) -> str:
    return source_key(Path(py_file))


class _SourceKeyed:
    """Puts the hash of all sources in place of the hash of the kernel's own file."""

    _py_file: str

    def get_source_stamp(self) -> str:
        return _key_of_file(self._py_file)


class _Provided(_SourceKeyed, UserProvidedCacheLocator):
    pass


class _InTree(_SourceKeyed, InTreeCacheLocator):
    pass


class _UserWide(_SourceKeyed, UserWideCacheLocator):
    pass


class _SourceKeyedImpl(CompileResultCacheImpl):
    # NUMBA_CACHE_DIR if set, else beside the source, else the user's cache folder where the source is
    # read-only.
    _locator_classes = [_Provided, _InTree, _UserWide]  # noqa: RUF012


class _SharedFile(IndexDataCacheFile):
    """Index and machine code on disk, written by one process at a time and never under a name used before."""

    def save(self, key: Any, data: Any) -> None:
        base: Any = super()
        with self._locked():
            entries = base._load_index()
            entries[key] = base._data_name(secrets.randbits(63))
            # The code first: whoever finds it in the index finds the file.
            base._save_data(entries[key], data)
            base._save_index(entries)
            self._remove_all_but(frozenset(entries.values()))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with open(f"{self._index_path}.lock", "wb") as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _remove_all_but(self, kept: frozenset[str]) -> None:
        base = self._index_name.removesuffix(".nbi")
        for path in Path(self._cache_path).glob(f"{base}.*.nbc"):
            if path.name not in kept:
                with suppress(OSError):
                    path.unlink()


class _SourceKeyedCache(FunctionCache):
    _impl_class = _SourceKeyedImpl

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]
        base, stamp = self._impl.filename_base, self._impl.locator.get_source_stamp()
        self._cache_file = _SharedFile(self._cache_path, base, stamp)  # type: ignore[no-untyped-call]
