"""Compiled loops: numba, which needs no compiler at install time, over the buffers of Arrow and NumPy.

A module of compiled functions is named `…_kernels` and imported where the work begins (`setup()`, `reduce()`), never
where an operator is declared: numba takes a third of a second to import. What it compiles is kept beside the module, or
in the user's cache folder, so that only the first run of a machine waits for the compiler.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])

_UNREADABLE = (AttributeError, ImportError, EOFError, ValueError, pickle.UnpicklingError)


def compiled(function: Function) -> Function:
    """The function compiled at its first call; it releases the GIL, so that threads run side by side.

    Not with numba's own threads: those neither survive a fork nor share cores with an executor's.
    """
    dispatcher: Any
    try:
        dispatcher = numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:
        # neither the module's folder nor the user's can be written
        dispatcher = numba.njit(nogil=True)(function)
    else:
        dispatcher._cache = _Forgiving(dispatcher._cache)
    return dispatcher


class _Forgiving:
    """numba's cache of one function, started anew where what lies there cannot be read.

    Signatures are pickled: where an older version of the package named a type that is gone, numba would raise.
    """

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def load_overload(self, signature: Any, context: Any) -> Any:
        """What was compiled for a signature; None to compile it."""
        try:
            return self._cache.load_overload(signature, context)
        except _UNREADABLE:
            self._cache.flush()
            return None
