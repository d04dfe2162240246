"""Compilation of the token kernels: ahead of their first call, to machine code, cached on disk.

Kernels touch only arrays that their caller owns, so they are compiled without reference counting, which would cost
more than the work itself (17 ms instead of 1.7 ms for the rollout of benchmarks/rollout.py). A kernel may therefore
allocate nothing. numba's cache looks at the date of the file of a function, not at the functions it inlines from other
files: here it looks at the text of all files in `COMPILED_FILES`, so that old machine code never answers for new text.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])

COMPILED_FILES: Final = (
    "admission.py",
    "compiled.py",
    "heaps.py",
    "interruption.py",
    "kernels.py",
    "kvcache.py",
    "prefix_cache.py",
    "relocation.py",
    "removal.py",
    "rng.py",
    "rollout_state.py",
    "router.py",
    "step_law.py",
    "step_table.py",
    "stretch.py",
    "turns.py",
)
"""Files whose text decides what the machine code does."""


def kernel(function: F) -> F:
    """Compile an entry point: called from Python, by several threads at once too; calls `inlined` functions."""
    options = {"nogil": True, "_nrt": False, "no_cfunc_wrapper": True}
    return _cached(function, numba.njit(cache=True, **options)(function))  # type: ignore[call-overload]


def inlined(function: F) -> F:
    """Compile a piece of a kernel into each kernel that uses it; also callable from Python."""
    return _cached(function, numba.njit(cache=True, forceinline=True, _nrt=False)(function))  # type: ignore[call-overload]


def private(function: F) -> F:
    """Compile like `inlined`, but not for Python: without the wrappers, which are a quarter of the compilation."""
    options = {"forceinline": True, "_nrt": False, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return _cached(function, numba.njit(cache=True, **options)(function))  # type: ignore[call-overload]


def called(function: F) -> F:
    """Compile like `private`, but once for each kernel, which calls it: for long pieces that are seldom needed."""
    options = {"_nrt": False, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return _cached(function, numba.njit(cache=True, **options)(function))  # type: ignore[call-overload]


def compiled(function: F) -> F:
    """Compile a function that may allocate."""
    return _cached(function, numba.njit(cache=True)(function))


def _fingerprint() -> str:
    texts = [(Path(__file__).parent / name).read_bytes() for name in COMPILED_FILES]
    return hashlib.sha256(b"\x1f".join(texts)).hexdigest()


_STAMP: Final = _fingerprint()


def _cached(function: F, dispatcher: Any) -> F:
    """Return the compiled function, its cache bound to the text of all files."""
    # numba offers no public way to say this; under NUMBA_DISABLE_JIT there is no dispatcher and no cache.
    if dispatcher is not function:
        dispatcher._cache._cache_file._source_stamp = _STAMP
    return cast(F, dispatcher)
