"""What an HTTP answer says, read with suspicion: status, opt-out headers, body, its encoding, when to come again."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from corpusmith.operators.fetch.addresses import TransientFailure
from corpusmith.schemas.fates import RowFailed

if TYPE_CHECKING:
    from aiohttp import ClientResponse

    from corpusmith.operators.fetch.download import DownloadConfig

_TRANSIENT_STATUSES = frozenset({408, 425, 429, *range(500, 600)})


def check_head(response: ClientResponse, config: DownloadConfig) -> None:
    """Raise if a response's status or headers say that its body is not to be read."""
    status = response.status
    if status in _TRANSIENT_STATUSES:
        raise TransientFailure(f"HTTPStatus {status}", wait_s=retry_after_s(response.headers.get("Retry-After")))
    if not 200 <= status < 300 or status == 206:
        raise RowFailed(f"HTTPStatus {status}")
    token = re.split(r"[/\s]", config.user_agent, maxsplit=1)[0]
    directive = opt_out(response.headers.getall("X-Robots-Tag", ()), token, config.disallowed_header_directives)
    if directive:
        raise RowFailed("opted out", f"X-Robots-Tag: {directive}")
    if (response.content_length or 0) > config.max_bytes:
        raise RowFailed("too large", f"Content-Length {response.content_length} > {config.max_bytes} bytes")


async def read_body(response: ClientResponse, max_bytes: int) -> bytes:
    """The body, at most `max_bytes` of it.

    Raises:
        RowFailed: `too large`.
    """
    chunks: list[bytes] = []
    size_bytes = 0
    async for chunk in response.content.iter_any():
        size_bytes += len(chunk)
        if size_bytes > max_bytes:
            raise RowFailed("too large", f"more than {max_bytes} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


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
