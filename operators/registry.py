"""The registry: operator names → classes, from this package's files and from entry points of others.

No list is kept by hand: every module below `corpusmith.operators` is imported (heavy imports wait for `setup()`), then
the entry points of group `corpusmith.operators`, each of which names an operator class. Modules named `kernels`, or
`…_kernels`, hold compiled loops and no operators, and wait as well: they import numba.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from functools import cache
from importlib.metadata import entry_points

import corpusmith.operators
from corpusmith.operators.contract import Operator
from corpusmith.schemas.errors import UserError

ENTRY_POINT_GROUP = "corpusmith.operators"
KERNELS = "kernels"

_added: dict[str, type[Operator]] = {}


@cache
def _discovered() -> dict[str, type[Operator]]:
    found: dict[str, type[Operator]] = {}
    for module in pkgutil.walk_packages(corpusmith.operators.__path__, "corpusmith.operators."):
        if module.name.endswith(KERNELS):
            continue
        for _, cls in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if issubclass(cls, Operator) and cls.name and cls.__module__ == module.name:
                _insert(found, cls)
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        _insert(found, entry.load())
    return found


def _insert(table: dict[str, type[Operator]], cls: type[Operator]) -> None:
    other = table.get(cls.name)
    if other is not None and other is not cls:
        raise UserError(
            f"two operators are named {cls.name!r}: {other.__module__}.{other.__qualname__} and "
            f"{cls.__module__}.{cls.__qualname__}",
            hint="rename one of them",
        )
    table[cls.name] = cls


def register(cls: type[Operator]) -> type[Operator]:
    """Add an operator class for this process; a decorator for scripts and notebooks. Packages use entry points."""
    if cls.name in _discovered():
        _insert(dict(_discovered()), cls)
    _insert(_added, cls)
    return cls


def operators() -> dict[str, type[Operator]]:
    """All operators by name, sorted."""
    return dict(sorted({**_discovered(), **_added}.items()))


def operator_class(name: str, *, where: str | None = None) -> type[Operator]:
    """The class of an operator.

    Raises:
        UserError: the name is unknown; lists the choices, the likeliest first.
    """
    table = operators()
    if name not in table:
        close = difflib.get_close_matches(name, table, n=1)
        guess = f"did you mean {close[0]!r}? " if close else ""
        raise UserError(f"unknown step {name!r}", where=where, hint=f"{guess}operators: {', '.join(table)}")
    return table[name]
