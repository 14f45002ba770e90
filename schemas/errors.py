"""Errors that a user can act on: what went wrong, where, and what to do about it.

Everything else that is raised is a bug in corpusmith or in an operator, and shows its traceback.
"""

from __future__ import annotations


class UserError(Exception):
    """A mistake or an obstacle outside corpusmith, told in the user's words.

    Args:
        what: one sentence: what is wrong.
        where: file and line, step, or path that it concerns.
        hint: what to do about it.
    """

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head}\n  {self.hint}" if self.hint else head

    def __reduce__(self) -> tuple:
        return _rebuild, (self.what, self.where, self.hint)


def _rebuild(what: str, where: str | None, hint: str | None) -> UserError:
    return UserError(what, where=where, hint=hint)
