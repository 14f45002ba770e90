"""Errors say where and what, and never what grants access."""

from __future__ import annotations

import pickle

import pytest

from corpusmith.schemas.errors import UserError

SIGNED = "https://user:s3cr3t@x/corpus?sig=s3cr3t&w=1"


@pytest.mark.parametrize("field", ["what", "where", "hint"])
def test_addresses_lose_their_signatures(field: str) -> None:
    told: dict[str, str] = {"what": "it is gone", field: f"see {SIGNED} and s3://bucket/plain.parquet"}
    error = UserError(told.pop("what"), **told)
    for shown in (str(error), str(pickle.loads(pickle.dumps(error))), repr(error)):
        assert "s3cr3t" not in shown
    assert "https://x/corpus?sig=REDACTED&w=1 and s3://bucket/plain.parquet" in str(error)


def test_other_texts_stay() -> None:
    error = UserError("no a=b@c", where="folder/sig=1:3", hint="write `sig=…`")
    assert str(error) == "folder/sig=1:3: no a=b@c\n  write `sig=…`"
