"""What a download comes to, and the recent ones, kept for rows that name the same URL."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from functools import cached_property

from corpusmith.operators.media_type import media_type


class Downloaded:
    """Bytes as downloaded, and what they say about themselves, found when it is asked for.

    Args:
        body: the bytes.
        etag: the server's ETag.
        http_status: of the last response; None where there was no HTTP.
    """

    def __init__(self, body: bytes, etag: str | None, http_status: int | None) -> None:
        self.body = body
        self.etag = etag
        self.http_status = http_status

    @cached_property
    def sha256(self) -> str:
        """In hex."""
        return hashlib.sha256(self.body).hexdigest()

    @cached_property
    def mime(self) -> str | None:
        """Media type by content."""
        return media_type(self.body)

    def digest(self, kind: str) -> str:
        """A hash of the bytes, in hex; `kind` as hashlib names it."""
        return self.sha256 if kind == "sha256" else hashlib.new(kind, self.body, usedforsecurity=False).hexdigest()


class RecentDownloads:
    """Downloads by URL, the longest unused dropped first, within a bound on the bytes of their bodies."""

    def __init__(self, max_bytes: int) -> None:
        self._left_bytes = max_bytes
        self._downloads: OrderedDict[str, Downloaded] = OrderedDict()

    def get(self, url: str) -> Downloaded | None:
        """The recent download of a URL."""
        if url in self._downloads:
            self._downloads.move_to_end(url)
        return self._downloads.get(url)

    def put(self, url: str, download: Downloaded) -> None:
        """Keep a download that is not there yet."""
        self._downloads[url] = download
        self._left_bytes -= len(download.body)
        while self._left_bytes < 0:
            _, dropped = self._downloads.popitem(last=False)
            self._left_bytes += len(dropped.body)
