"""Fake operators and inputs for the tests of the state rules: fast, pure, countable, and able to kill their worker.

Each call is noted in a file named by the environment, so that tests can tell what was computed, in whatever process.
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import Field

from corpusmith.operators.contract import (
    Annotate,
    AnnotateRows,
    Children,
    Config,
    Part,
    Reduce,
    Reduced,
    Resources,
    Rows,
    Split,
)
from corpusmith.operators.registry import register
from corpusmith.schemas.columns import MEDIA, Column
from corpusmith.schemas.fates import RowFailed

CALLS_ENV = "CORPUSMITH_TEST_CALLS"


def note(operator: str, uids: list[str]) -> None:
    """Append one line a row to the file of calls; O_APPEND keeps lines of many processes whole."""
    path = os.environ.get(CALLS_ENV)
    if path and uids:
        with Path(path).open("a") as file:
            file.write("".join(f"{operator} {uid}\n" for uid in uids))


def calls(operator: str) -> list[str]:
    """Uids that an operator has worked on, in order, repeats included."""
    path = Path(os.environ[CALLS_ENV])
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.split()[1] for line in lines if line.split()[0] == operator]


def forget_calls() -> None:
    """Start counting anew."""
    Path(os.environ[CALLS_ENV]).unlink(missing_ok=True)


def number_of(text: str, salt: str = "") -> int:
    """A number in [0, 1000) that stands for a score."""
    return int(hashlib.sha256((salt + text).encode()).hexdigest()[:8], 16) % 1000


class FakeScoreConfig(Config):
    """Parameters of FakeScore."""

    salt: str = ""
    sleep_s: float = 0.0


@register
class FakeScore(Annotate, name="fake_score", version=1):
    """Scores a caption."""

    Config = FakeScoreConfig
    config: FakeScoreConfig
    isolated = False
    batch_rows = 50

    @property
    def requires(self) -> tuple[str, ...]:
        return ("caption",)

    @property
    def produces(self) -> tuple[Column, ...]:
        return (Column("score", pa.int64(), "a number"),)

    def process(self, batch: pa.Table) -> Part:
        note("fake_score", batch.column("uid").to_pylist())
        if self.config.sleep_s:
            time.sleep(self.config.sleep_s * batch.num_rows)
        return Part({"score": [number_of(c or "", self.config.salt) for c in batch.column("caption").to_pylist()]})


class FakeFetchConfig(Config):
    """Parameters of FakeFetch."""

    size: int = Field(default=64, description="bytes of media")
    sleep_s: float = 0.0


@register
class FakeFetch(AnnotateRows, name="fake_fetch", version=1):
    """Makes media from the URL; fails where it says `fail`, kills its worker where it says `die`."""

    Config = FakeFetchConfig
    config: FakeFetchConfig
    batch_rows = 20
    isolated = True
    resources = Resources(cpus=1.0)

    @property
    def requires(self) -> tuple[str, ...]:
        return ("url",)

    @property
    def produces(self) -> tuple[Column, ...]:
        return (MEDIA, Column("size_bytes", pa.int64(), "size"))

    def process_row(self, row: dict[str, Any]) -> dict[str, Any]:
        note("fake_fetch", [row["uid"]])
        if self.config.sleep_s:
            time.sleep(self.config.sleep_s)
        if "die" in row["url"]:
            os._exit(11)
        if "fail" in row["url"]:
            raise RowFailed("HTTPStatus 404", "no such picture")
        media = hashlib.sha256(row["url"].encode()).digest() * (self.config.size // 32)
        return {"media": media, "size_bytes": len(media) + number_of(row["url"])}


class FakeShrinkConfig(Config):
    """Parameters of FakeShrink."""

    keep: int = 32


@register
class FakeShrink(AnnotateRows, name="fake_shrink", version=1):
    """Makes smaller media from media."""

    Config = FakeShrinkConfig
    config: FakeShrinkConfig
    isolated = False
    batch_rows = 20

    @property
    def requires(self) -> tuple[str, ...]:
        return ("media",)

    @property
    def produces(self) -> tuple[Column, ...]:
        return (MEDIA, Column("first_byte", pa.int64(), "the first byte"))

    def process_row(self, row: dict[str, Any]) -> dict[str, Any]:
        note("fake_shrink", [row["uid"]])
        return {"media": row["media"][: self.config.keep], "first_byte": row["media"][0]}


@register
class FakeRank(Annotate, name="fake_rank", version=1):
    """Ranks by score and first byte: reads what two others made."""

    isolated = False

    @property
    def requires(self) -> tuple[str, ...]:
        return ("score", "first_byte")

    @property
    def produces(self) -> tuple[Column, ...]:
        return (Column("rank", pa.int64(), "a number"),)

    def process(self, batch: pa.Table) -> Part:
        note("fake_rank", batch.column("uid").to_pylist())
        rows = zip(batch.column("score").to_pylist(), batch.column("first_byte").to_pylist(), strict=True)
        return Part({"rank": [a * 256 + b for a, b in rows]})


@register
class FakeCrops(Split, name="fake_crops", version=1):
    """Splits a sample into score % 4 crops."""

    isolated = False

    @property
    def requires(self) -> tuple[str, ...]:
        return ("score",)

    @property
    def produces(self) -> tuple[Column, ...]:
        return (Column("crop", pa.int64(), "number of the crop"),)

    def process(self, batch: pa.Table) -> Children:
        pairs = [(i, k) for i, score in enumerate(batch.column("score").to_pylist()) for k in range(score % 4)]
        return Children([i for i, _ in pairs], [str(k) for _, k in pairs], {"crop": [k for _, k in pairs]})


class FakeTopConfig(Config):
    """Parameters of FakeTop."""

    keep: float = 0.5


@register
class FakeTop(Reduce, name="fake_top", version=1):
    """Keeps the top share by score; ties by uid."""

    Config = FakeTopConfig
    config: FakeTopConfig

    @property
    def requires(self) -> tuple[str, ...]:
        return ("score",)

    @property
    def produces(self) -> tuple[Column, ...]:
        return (Column("place", pa.int64(), "place from the top"),)

    def reduce(self, rows: Rows) -> Reduced:
        note("fake_top", ["-"])
        table = rows.reader(["score"]).read_all().sort_by([("score", "descending"), ("uid", "ascending")])
        cut = int(table.num_rows * self.config.keep)
        places = list(range(table.num_rows))
        fates = [None if place < cut else "rejected" for place in places]
        reasons = [None if place < cut else f"top {self.config.keep}: place = {place}" for place in places]
        columns = {"uid": table.column("uid"), "fate": fates, "reason": reasons, "error": [None] * len(places)}
        return Reduced(pa.table({**columns, "place": pa.array(places, pa.int64())}))


class FakeMoodyConfig(Config):
    """Parameters of FakeMoody."""

    marker: str = ""


@register
class FakeMoody(AnnotateRows, name="fake_moody", version=1):
    """Fails for one row in three for as long as a marker file lies there, as a server does that is down."""

    Config = FakeMoodyConfig
    config: FakeMoodyConfig
    isolated = False

    @property
    def requires(self) -> tuple[str, ...]:
        return ("url",)

    @property
    def produces(self) -> tuple[Column, ...]:
        return (Column("mood", pa.int64(), "a number"),)

    def process_row(self, row: dict[str, Any]) -> dict[str, Any]:
        note("fake_moody", [row["uid"]])
        mood = number_of(row["url"])
        if mood % 3 == 0 and Path(self.config.marker).exists():
            raise RowFailed("Timeout" if mood % 2 else "HTTPStatus 503", "the server is down")
        return {"mood": mood}
