"""A failure that the next attempt may not meet."""

from __future__ import annotations

from corpusmith.schemas.fates import RowFailed


class TransientFailure(RowFailed):
    """A failure that the next attempt may not meet; `wait_s` is how long the server asks to wait, if it does."""

    def __init__(self, error: str, message: str = "", wait_s: float | None = None) -> None:
        super().__init__(error, message)
        self.wait_s = wait_s
