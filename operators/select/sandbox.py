"""DuckDB connections in which an untrusted expression can do nothing but compute: no file, network or setting."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_idle: dict[int, list[Any]] = {}
"""Open connections by process. A fork leaves the parent's here, unused: to close one would wait for a thread of the
parent's for ever."""


@contextmanager
def sandbox() -> Iterator[Any]:
    """A connection for the caller alone: in memory, one thread, no file, network, extension or Python variable."""
    idle = _idle.setdefault(os.getpid(), [])
    try:
        connection = idle.pop()
    except IndexError:
        connection = _open()
    try:
        yield connection
    finally:
        idle.append(connection)


def _open() -> Any:
    import duckdb

    connection = duckdb.connect(
        ":memory:",
        config={
            "threads": 1,
            "enable_external_access": False,
            "python_enable_replacements": False,
            "autoload_known_extensions": False,
        },
    )
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET lock_configuration = true")
    return connection


def fetch(sql: str, *parameters: str) -> list[tuple[Any, ...]]:
    """All rows of a query with parameters."""
    with sandbox() as connection:
        return connection.execute(sql, parameters).fetchall()
