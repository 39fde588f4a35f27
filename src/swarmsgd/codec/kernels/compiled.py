"""Compiled passes over float32 vectors in host memory: one thread, no GIL, no fast-math.

Each is compiled for exactly one signature, or loaded from numba's disk cache, at its first call or
by `prepare`; no call compiles a second variant in the middle of training.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numba as nb
from llvmlite import binding
from numba.core import config as numba_config
from numba.core import types

from swarmsgd import caches
from swarmsgd.core import lattice

_log = logging.getLogger("swarmsgd")
config: Any = numba_config

VECTOR = types.Array(types.float32, 1, "C")
BYTES = types.Array(types.uint8, 1, "C")
WORDS = types.Array(types.uint32, 1, "C")
VECTOR_IN = types.Array(types.float32, 1, "C", readonly=True)
BYTES_IN = types.Array(types.uint8, 1, "C", readonly=True)
WORDS_IN = types.Array(types.uint32, 1, "C", readonly=True)
PLACES_IN = types.Array(types.int64, 1, "C", readonly=True)


def _version() -> str:
    """Of all code that kernels are made of, and of the processor that they are made for.

    It becomes a part of the names in the cache, since numba itself looks only at the file that a
    kernel is written in, and lets processes on unlike machines write to one name at once.
    """
    folder = Path(__file__).parent
    version = hashlib.sha256(binding.get_host_cpu_name().encode())
    for source in [*sorted(folder.glob("*.py")), Path(lattice.__file__)]:
        version.update(source.read_bytes() if source.exists() else b"")
    return version.hexdigest()[:12]


def cache_place() -> caches.CachePlace:
    """Where compiled kernels are kept: where NUMBA_CACHE_DIR says, beside their source, or where
    this package keeps what can be made again.
    """
    usual = Path(config.CACHE_DIR or Path(__file__).parent / "__pycache__")
    if caches.can_write(usual):
        return caches.CachePlace(usual, "")
    kept, why = caches.cache()
    if not caches.can_write(kept):
        kept, why = caches.private_temporary(), f"{kept} cannot be written to"
    reasons = [f"{usual} cannot be written to", *([why] if why else [])]
    return caches.CachePlace(kept / "kernels", " and ".join(reasons))


@contextlib.contextmanager
def _kept_in(folder: Path | None) -> Iterator[None]:
    """Inside, numba takes this folder for the cache of what it is shown."""
    before = config.CACHE_DIR
    config.CACHE_DIR = before if folder is None else str(folder)
    try:
        yield
    finally:
        config.CACHE_DIR = before


class Kernel:
    """A compiled function of one signature, cached on disk where that is possible."""

    def __init__(self, function: Callable[..., Any], signature: Any) -> None:
        self.__doc__ = function.__doc__
        self._signature = signature
        self._lock = threading.Lock()
        function.__qualname__ = f"{function.__name__}-{_VERSION}"
        try:
            with _kept_in(_PLACE.folder if _PLACE.instead_of else None):
                self._dispatcher: Any = nb.njit(function, nogil=True, cache=True)
        except RuntimeError:  # no directory that a cache could be written to
            self._dispatcher = nb.njit(function, nogil=True)

    @cached_property
    def compiled(self) -> Callable[..., Any]:
        """The compiled function itself, compiled or loaded at the first use."""
        with self._lock:
            if not self._dispatcher.signatures:
                self._dispatcher.compile(self._signature)
                self._dispatcher.disable_compile()
        return self._dispatcher

    @property
    def is_ready(self) -> bool:
        """Whether it is compiled."""
        return "compiled" in vars(self)

    @property
    def was_cached(self) -> bool:
        """Whether it was loaded and not compiled."""
        return bool(self._dispatcher.stats.cache_hits)

    def __call__(self, *arguments: Any) -> Any:
        return self.compiled(*arguments)


_VERSION = _version()
_PLACE = cache_place()
KERNELS: list[Kernel] = []


def kernel(signature: Any) -> Callable[[Callable[..., Any]], Kernel]:
    """Decorator: the function as a `Kernel` of this signature."""

    def wrap(function: Callable[..., Any]) -> Kernel:
        KERNELS.append(Kernel(function, signature))
        return KERNELS[-1]

    return wrap


def prepare() -> None:
    """Compile or load every kernel now, so that no later call does. Compiling takes up to a minute
    or two: that is said, and where the result is kept.
    """
    if all(made.is_ready for made in KERNELS):
        return
    told = False
    for made in KERNELS:
        _ = made.compiled
        if not made.was_cached and not told:
            told = True
            _log.warning("%s", what_takes_long(_PLACE))


def what_takes_long(place: caches.CachePlace) -> str:
    """One line."""
    text = "compiling for this machine, once: it is kept in"
    if not place.instead_of:
        return f"{text} {place.folder}"
    return f"{text} {place.folder}, since {place.instead_of}. NUMBA_CACHE_DIR names another place"
