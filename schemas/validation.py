"""What is wrong with the values that somebody wrote, told from what pydantic found.

Recipes and the parameters of operators are pydantic models; their errors name fields and types of Python. Here they
become one error in the user's words: where, which value, what it may be, and the likeliest name for a wrong one.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from corpusmith.schemas.errors import UserError

SHOWN_CHARS = 60
"""Characters of a value that an error shows at most."""


def validation_error(
    error: ValidationError, model: type[BaseModel], *, place: Callable[[str], str | None], noun: str, owner: str
) -> UserError:
    """All that is wrong with the values of a model, as one error for a person.

    Args:
        error: what pydantic found.
        model: the model; its fields are the choices.
        place: field → where it was written; called with "" for the whole.
        noun: what a field is called: `key`, `parameter`.
        owner: what the values belong to.
    """
    groups: dict[str, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        groups.setdefault(str(detail["loc"][0]) if detail["loc"] else "", []).append(detail)
    told = [(*_problem(key, details, model, noun, owner), place(key)) for key, details in groups.items()]
    what, hint, where = told[0]
    further = [f"also {at or owner}: {more}{f' ({advice})' if advice else ''}" for more, advice, at in told[1:]]
    return UserError(what, where=where, hint="\n  ".join(filter(None, [hint, *further])) or None)


def _problem(key: str, details: list[ErrorDetails], model: type[BaseModel], noun: str, owner: str) -> tuple[str, str]:
    """What is wrong with one field, and what to do."""
    first = details[0]
    fields = [name for name in model.model_fields if not model.model_fields[name].exclude]
    if not key:
        return f"{owner}: {_message(first)}", f"{noun}s: {listed(fields) or 'none'}"
    if first["type"] == "extra_forbidden" and key not in model.model_fields:
        return unknown_name(key, noun, owner, fields)
    field = model.model_fields.get(key)
    help_text = f"{key}: {field.description}" if field is not None and field.description else ""
    if first["type"] == "missing" and len(first["loc"]) == 1:
        return f"{owner} needs the {noun} {key!r}", help_text
    inner = ".".join(map(str, first["loc"])) if len(details) == 1 else key
    messages = " or ".join(dict.fromkeys(map(_message, details)))
    return f"{owner}: {inner} = {_shown(first['input'])}: {messages}", help_text


def _message(detail: ErrorDetails) -> str:
    text = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return text[:1].lower() + text[1:] if detail["type"] != "value_error" else text


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…"


def unknown_name(name: str, noun: str, owner: str, choices: Sequence[str]) -> tuple[str, str]:
    """What is wrong with a name that is none of the choices, and what to do."""
    return f"{owner} has no {noun} {name!r}", f"{did_you_mean(name, choices)}{noun}s: {listed(choices) or 'none'}"


def listed(names: Iterable[str]) -> str:
    """Names in one line."""
    return ", ".join(names)


def did_you_mean(name: str, choices: Sequence[str]) -> str:
    """A guess for an unknown name, as the start of a hint; empty where nothing is near."""
    folded = {choice.lower(): choice for choice in reversed(choices)}
    close = difflib.get_close_matches(name.lower(), folded, n=1) or [
        choice for choice in folded if name and choice.startswith(name.lower())
    ]
    return f"did you mean {folded[close[0]]!r}? " if close else ""
