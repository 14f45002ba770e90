"""Processes that start in no time and are not held up: pyarrow without pandas, a collector that comes seldom.

pyarrow imports pandas, where it is installed, at the first list that it makes an array of: 0.4 s of a core for a
process that never sees a data frame. It tries once; a process in which that try fails has all of pyarrow but the
conversions from and to pandas.

Python looks for cycles of garbage after each 700 new objects, through all objects again and again; rows, requests and
tables are none, and a process that handles many of them spent a quarter of its time on that.
"""

from __future__ import annotations

import gc
import sys
from importlib.abc import MetaPathFinder
from typing import Any

_NAME = "pandas"
_COLLECT_AFTER = (20_000, 10, 10)


class _NoPandas(MetaPathFinder):
    """Lets the import of pandas fail."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        if fullname == _NAME:
            raise ModuleNotFoundError(f"No module named {_NAME!r}", name=_NAME)


def keep_pandas_out() -> None:
    """Make pyarrow go without pandas in this process from now on; without effect where pandas is loaded already."""
    import pyarrow as pa

    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.array([None])
    finally:
        sys.meta_path.remove(finder)


def collect_seldom() -> None:
    """Look for cycles of garbage less often, and not among what is loaded by now."""
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)
