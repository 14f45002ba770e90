"""Fates: every row in, and every row that an operator makes, ends in exactly one of four.

Rows in + rows made = kept + rejected + failed + split, checked at the end of each run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Fate(StrEnum):
    """How a sample ended."""

    KEPT = "kept"
    REJECTED = "rejected"
    FAILED = "failed"
    SPLIT = "split"


@dataclass(frozen=True)
class RowError:
    """Why one row failed at one step.

    Args:
        error: class of the error in few words, stable enough to count by: `HTTPStatus 404`, `Timeout`, `worker died`.
        message: the detail, for a person; holds no secret.
    """

    error: str
    message: str = ""

    @staticmethod
    def of(exception: BaseException) -> RowError:
        """The record of a caught exception; a `RowFailed` carries its own class."""
        if isinstance(exception, RowFailed):
            return exception.row_error
        return RowError(type(exception).__name__, str(exception)[:500])


class RowFailed(Exception):
    """Raised by an operator to fail the row at hand with a class of its own."""

    def __init__(self, error: str, message: str = "") -> None:
        super().__init__(f"{error}: {message}" if message else error)
        self.row_error = RowError(error, message)

    def __reduce__(self) -> tuple:
        return RowFailed, (self.row_error.error, self.row_error.message)


def conservation_gap(rows_in: int, rows_made: int, fates: Mapping[str, int]) -> int:
    """Rows without a fate (positive) or with more than one (negative); 0 when every row is accounted for."""
    return rows_in + rows_made - sum(fates.get(fate, 0) for fate in Fate)
