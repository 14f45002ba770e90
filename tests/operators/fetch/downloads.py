"""What the tests of downloads share: an operator that is set up, tables of URLs, outcomes in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from corpusmith.operators.contract import Part
from corpusmith.operators.fetch.config import DownloadConfig
from corpusmith.operators.fetch.download import Download

Outcome = dict[str, Any] | tuple[str, str]
"""The produced values, or (error, message)."""


class Opened:
    """A set-up operator; `with` closes it."""

    def __init__(self, share: float = 1.0, **parameters: Any) -> None:
        quick = {"allow_hosts": ("127.0.0.1",), "backoff_max_s": 0.05, "timeout_s": 5.0}
        self.operator = Download(DownloadConfig(**(quick | parameters)))
        self.operator.share = share

    def __enter__(self) -> Download:
        self.operator.setup()
        return self.operator

    def __exit__(self, *_: object) -> None:
        self.operator.close()


def table(urls: Iterable[str | None]) -> pa.Table:
    listed = list(urls)
    uids = [f"{i:032x}" for i in range(len(listed))]
    return pa.table({"uid": uids, "url": pa.array(listed, pa.string())})


def outcomes(operator: Download, urls: Iterable[str | None]) -> list[Outcome]:
    """For each URL in order: the produced values, or (error, message). Checks that each row comes out once."""
    batch = table(urls)
    found: dict[int, Outcome] = {}
    for part in operator.process(batch):
        for position, outcome in rows_of(operator, part):
            assert position not in found
            found[position] = outcome
    assert sorted(found) == list(range(batch.num_rows))
    return [found[i] for i in range(batch.num_rows)]


def rows_of(operator: Download, part: Part) -> Iterator[tuple[int, Outcome]]:
    assert part.rows is not None
    columns = {c.name: pa.array(part.columns[c.name], c.type).to_pylist() for c in operator.produces}
    for k, position in enumerate(part.rows):
        error = part.errors.get(k)
        yield position, (error.error, error.message) if error else {name: v[k] for name, v in columns.items()}


def outcome(url: str | None, **parameters: Any) -> Outcome:
    with Opened(**parameters) as operator:
        return outcomes(operator, [url])[0]


def error_of(url: str | None, **parameters: Any) -> str:
    told = outcome(url, **parameters)
    assert isinstance(told, tuple), "the download was expected to fail"
    return told[0]


def values_of(url: str, **parameters: Any) -> dict[str, Any]:
    told = outcome(url, **parameters)
    assert isinstance(told, dict), told
    return told
