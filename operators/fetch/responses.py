"""What an HTTP answer says, read with suspicion: status, opt-out headers, body, its encoding, when to come again."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from corpusmith.operators.fetch.config import DownloadConfig
from corpusmith.operators.fetch.transient import TransientFailure
from corpusmith.schemas.fates import RowFailed

_TRANSIENT_STATUSES = frozenset({408, 425, 429, *range(500, 600)})
_NO_WHOLE = frozenset({205, 206})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_READ = {
    name.encode(): name
    for name in ("content-encoding", "content-length", "etag", "location", "retry-after", "x-robots-tag")
}
_STATUS_LINE = re.compile(rb"HTTP/[0-9.]+ +([0-9]{3})")


@dataclass(frozen=True, slots=True)
class Head:
    """Status, and those headers of a response that are read here; bytes that are no UTF-8 as lone surrogates."""

    status: int
    headers: dict[str, list[str]]

    @staticmethod
    def of(lines: Sequence[bytes]) -> Head:
        """Read a status line and the header lines after it; headers that nobody here asks for are passed over.

        Raises:
            RowFailed: `bad response` if the first line is no status line.
        """
        status = _STATUS_LINE.match(lines[0])
        if status is None:
            raise RowFailed("bad response", "not HTTP: no status line")
        headers: dict[str, list[str]] = {}
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            known = _READ.get(name.strip().lower())
            if known:
                headers.setdefault(known, []).append(value.strip().decode("utf-8", "surrogateescape"))
        return Head(int(status[1]), headers)

    def first(self, name: str) -> str | None:
        """The first value of a header, given in lower case."""
        values = self.headers.get(name)
        return values[0] if values else None

    @property
    def location(self) -> str | None:
        """Where a redirect leads to; None if this is none."""
        return (self.first("location") or None) if self.status in _REDIRECTS else None

    @property
    def length_bytes(self) -> int | None:
        """The declared length of the body, an absurd one cut to 19 digits; None if none is declared in digits."""
        declared = self.first("content-length")
        return int(declared.lstrip("0")[:19] or 0) if declared and re.fullmatch("[0-9]+", declared) else None


@dataclass(frozen=True, slots=True)
class Reply:
    """A response that came in full: its head, and its body as it was sent."""

    head: Head
    body: bytes


def check_head(head: Head, config: DownloadConfig) -> None:
    """Raise if a response's status or headers say that its body is not to be read."""
    status = head.status
    if status in _TRANSIENT_STATUSES:
        raise TransientFailure(f"HTTPStatus {status}", wait_s=retry_after_s(head.first("retry-after")))
    if head.location is not None:
        return
    if not 200 <= status < 300 or status in _NO_WHOLE:
        raise RowFailed(f"HTTPStatus {status}")
    tags = head.headers.get("x-robots-tag")
    directive = tags and opt_out(tags, config.agent_token, config.disallowed_header_directives)
    if directive:
        raise RowFailed("opted out", f"X-Robots-Tag: {directive}")
    if (head.length_bytes or 0) > config.max_bytes:
        raise RowFailed("too large", f"Content-Length {head.length_bytes} > {config.max_bytes} bytes")


def decompressed(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """The body without its Content-Encoding: at most `max_bytes`, and whole.

    Raises:
        RowFailed: `too large`, `truncated body`, or `bad response` if the encoding is not known or the data not of it.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity") or not body:
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise RowFailed("bad response", f"Content-Encoding {valid_text(encoding[:32])}, which was not asked for")
    raw_deflate = encoding == "deflate" and body[0] & 0xF != 8
    decompressor = zlib.decompressobj(-zlib.MAX_WBITS if raw_deflate else zlib.MAX_WBITS | 32)
    try:
        plain = decompressor.decompress(body, max_bytes + 1)
    except zlib.error:
        raise RowFailed("bad response", f"the body is not {encoding}") from None
    if len(plain) > max_bytes:
        raise RowFailed("too large", f"more than {max_bytes} bytes when decompressed")
    if not decompressor.eof:
        raise TransientFailure("truncated body", f"the {encoding} data ends early")
    if decompressor.unused_data:
        raise RowFailed("bad response", f"data follows the {encoding} data")
    return plain


def retry_after_s(header: str | None) -> float | None:
    """Seconds that a Retry-After header (RFC 9110, section 10.2.3: seconds or a date) asks to wait; None if none."""
    if not header:
        return None
    if re.fullmatch(r"\s*[0-9]{1,9}\s*", header):
        return float(header)
    try:
        when = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


_AGENT_PREFIX = re.compile(r"\s*(?!max-|unavailable_after)(\*|[a-z][a-z0-9_.-]*)\s*:")


def opt_out(headers: Iterable[str], agent: str, disallowed: Iterable[str]) -> str | None:
    """The first directive of X-Robots-Tag headers that opts the media out for this agent, or None.

    A header is a list of directives, which a prefix may confine to one agent: `otherbot: noai, noindex`. `none` stands
    for `noindex, nofollow`. Directives with values (`max-snippet: 5`) look like a prefix and are none.
    """
    refused = {directive.lower() for directive in disallowed}
    if "noindex" in refused:
        refused.add("none")
    for header in headers:
        concerns_us = True
        for item in header.lower().split(","):
            confined = _AGENT_PREFIX.match(item)
            if confined:
                concerns_us = confined[1] in ("*", agent.lower())
            directive = item[confined.end() if confined else 0 :].strip()
            if concerns_us and directive in refused:
                return directive
    return None


def valid_text(text: str | None) -> str | None:
    """Header text that Arrow can hold: raw bytes of a header reach us as lone surrogates."""
    return text if text is None else text[:1024].encode("utf-8", "backslashreplace").decode()
