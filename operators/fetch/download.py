"""Download media by URL: bounded in bytes, time and redirects, polite to hosts, and honest about every failure.

A row ends with the bytes as the server gave them and what they say about themselves (hash, size, type by content), or
with one of a few stable classes of error, by which a run's losses can be counted. How it is done: worker.py (the
thread), fetching.py (turns, attempts, redirects), transfers.py and transfer.py (libcurl).

Limits of sharing: rows that name the same URL share one download while it is in flight, and for as long as the body
stays among the recent ones (`recent_max_bytes` in each worker). Repeats that lie further apart, or reach another
worker, are downloaded again; `dedup.exact` on `url` before the download avoids that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from corpusmith.operators.contract import Annotate, Part, Resources
from corpusmith.operators.fetch.config import DownloadConfig
from corpusmith.operators.fetch.stores import missing_packages
from corpusmith.schemas.columns import MEDIA, Column
from corpusmith.schemas.fates import RowError

if TYPE_CHECKING:
    from corpusmith.operators.fetch.results import Downloaded
    from corpusmith.operators.fetch.worker import Outcome


class Download(Annotate, name="download", version=2):
    """Download the media at `url`: http(s) alone, public addresses alone, opt-out headers honoured.

    Errors: `HTTPStatus N`, `Timeout`, `DNS failure`, `connection failed`, `truncated body`, `too large`,
    `address refused`, `scheme refused`, `invalid URL`, `too many redirects`, `opted out`, `robots disallowed`,
    `empty body`, `hash mismatch`, and `bad response` for what is no HTTP or has an encoding that cannot be undone. Of
    `allow_schemes`: `missing file`, `access denied`, `store failed`.
    """

    Config = DownloadConfig
    config: DownloadConfig
    resources = Resources(cpus=0.5, waits=True)
    isolated = False
    batch_rows = 256
    media_hash = "sha256"

    @property
    def requires(self) -> tuple[str, ...]:
        column = self.config.hash_column
        return ("url",) if column in (None, "url") else ("url", column)

    @property
    def produces(self) -> tuple[Column, ...]:
        return (
            MEDIA,
            Column("sha256", pa.string(), "sha256 of the bytes as downloaded, hex"),
            Column("size_bytes", pa.int64(), "size as downloaded", "bytes"),
            Column("mime", pa.string(), "media type, found from the content; null if not known"),
            Column("etag", pa.string(), "ETag that the server sent"),
            Column("http_status", pa.int64(), "status of the last response"),
        )

    def missing(self) -> str | None:
        return missing_packages(self.config.allow_schemes)

    def setup(self) -> None:
        from corpusmith.operators.fetch.worker import DownloadWorker

        self._worker = DownloadWorker(self.config, self.share)

    def close(self) -> None:
        self._worker.close()

    def process(self, batch: pa.Table) -> Iterator[Part]:
        column = self.config.hash_column
        expected = batch[column].to_pylist() if column else None
        for outcomes in self._worker.download(batch["url"].to_pylist()):
            if expected is not None:
                outcomes = [(i, self._verified(outcome, expected[i])) for i, outcome in outcomes]
            yield self._part(outcomes)

    def _verified(self, outcome: Downloaded | RowError, expected: Any) -> Downloaded | RowError:
        """A download whose hash is the expected one, or why it is not."""
        if isinstance(outcome, RowError):
            return outcome
        if not expected:
            return RowError(f"missing {self.config.hash_column}", "no hash to verify the download with")
        found = outcome.digest(self.config.hash_type)
        if found == str(expected).strip().lower():
            return outcome
        return RowError("hash mismatch", f"{self.config.hash_type} is {found}")

    def _part(self, outcomes: list[Outcome]) -> Part:
        errors = {k: outcome for k, (_, outcome) in enumerate(outcomes) if isinstance(outcome, RowError)}
        values = [_values(outcome) for _, outcome in outcomes]
        columns = {c.name: [v[k] for v in values] for k, c in enumerate(self.produces)}
        return Part(columns, errors, rows=[i for i, _ in outcomes])


def _values(outcome: Downloaded | RowError) -> tuple[Any, ...]:
    """Values of the produced columns in their order."""
    if isinstance(outcome, RowError):
        return (None,) * 6
    return (outcome.body, outcome.sha256, len(outcome.body), outcome.mime, outcome.etag, outcome.http_status)
