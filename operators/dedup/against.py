"""Deduplication against finished corpora: what the parameters `against` and `against_sha256` have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo

from corpusmith.operators.finished import corpora_sha256
from corpusmith.schemas.errors import UserError


def _of_the_corpora(given: str | None, info: ValidationInfo) -> str | None:
    if not info.data.get("against"):
        return given
    try:
        found = corpora_sha256(info.data["against"])
    except UserError as error:
        raise ValueError(str(error)) from error
    if given not in (None, found):
        raise ValueError(f"the corpora of `against` are others: {found}")
    return found


AgainstSha256 = Annotated[
    str | None,
    Field(
        validate_default=True,
        description="fingerprint of the samples of those corpora, filled in when the recipe is read so that a changed "
        "corpus is a changed step; give it to insist on their present state",
    ),
    AfterValidator(_of_the_corpora),
]
"""Type of a parameter that stands after `against: tuple[str, ...]`, None by default."""


def check_unchanged(against: Sequence[str], against_sha256: str | None) -> None:
    """See that the corpora are still those that the recipe was read with.

    Raises:
        UserError: they are not.
    """
    if against and corpora_sha256(against) != against_sha256:
        hint = "start again: the recipe is then read with the corpora as they are"
        raise UserError("a finished corpus changed after the recipe was read", where=", ".join(against), hint=hint)
