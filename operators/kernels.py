"""Compiled loops: numba, which needs no compiler at install time, over the buffers of Arrow and NumPy.

A module of compiled functions is named `…_kernels` and imported where the work begins (`setup()`, `reduce()`), never
where an operator is declared: numba takes a third of a second to import. What it compiles is kept beside the module, or
in the user's cache folder, so that only the first run of a machine waits for the compiler.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """The function compiled at its first call; it releases the GIL, so that threads run side by side.

    Not with numba's own threads: those neither survive a fork nor share cores with an executor's.
    """
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:
        # neither the module's folder nor the user's can be written
        return numba.njit(nogil=True)(function)
