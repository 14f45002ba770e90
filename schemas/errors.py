"""Errors that a user can act on: what went wrong, where, and what to do about it.

Everything else that is raised is a bug in corpusmith or in an operator, and shows its traceback.
"""

from __future__ import annotations

import re

from corpusmith.schemas.urls import redact_url

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE)


class UserError(Exception):
    """A mistake or an obstacle outside corpusmith, told in the user's words; addresses lose their signatures.

    Args:
        what: one sentence: what is wrong.
        where: file and line, step, or path that it concerns.
        hint: what to do about it.
    """

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        self.what = _without_secrets(what)
        self.where = None if where is None else _without_secrets(where)
        self.hint = None if hint is None else _without_secrets(hint)
        super().__init__(self.what)

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head}\n  {self.hint}" if self.hint else head

    def __reduce__(self) -> tuple:
        return _rebuild, (self.what, self.where, self.hint)


def _without_secrets(text: str) -> str:
    return _ADDRESS.sub(lambda address: redact_url(address[0]), text) if "://" in text else text


def _rebuild(what: str, where: str | None, hint: str | None) -> UserError:
    return UserError(what, where=where, hint=hint)
