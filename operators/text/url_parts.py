"""url_parts: the host that a URL names, and the extension of its path.

Hosts come in one spelling, so that they can be counted: lower case, international names in their ASCII form (UTS 46),
without port, user name, trailing dot and a leading `www.`. There is no list of public suffixes here, so a host is not
cut down to the domain that somebody registered: `a.example.co.uk` and `b.example.co.uk` are two hosts.

What is no URL with a host gives null, never an error.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from corpusmith.operators.contract import Annotate, Part
from corpusmith.operators.contract import Config as BaseConfig
from corpusmith.schemas.columns import URL, Column

_PARTS = (
    r"(?is)^[a-z][a-z0-9+.-]*://(?:[^/\\?#]*@)?(?P<host>\[[^/\\?#\]]*\]|[^/\\?#@:]*)(?::[0-9]*)?"
    r"(?P<path>[/\\][^?#]*)?(?:[?#].*)?$"
)
"""A backslash ends a host as a slash does, and an @ after it means nothing: so browsers read it."""
_EXTENSION = r"\.(?P<extension>[A-Za-z0-9]{1,10})(?::[A-Za-z]+)?$"
"""After the last dot; a size as in `a.jpg:large` may follow."""

MAX_HOST_CHARS = 253
_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_PLAIN_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?")
_WRITTEN_CHARS = 4 * MAX_HOST_CHARS
"""A host's characters before it is decoded; a longer one is none."""


class UrlParts(Annotate, name="url_parts", version=1):
    """Read the host and the path's extension off the URL."""

    class Config(BaseConfig):
        column: str = Field(default=URL.name, description="column that holds the URL")

    stored = False
    isolated = False
    batch_rows = 16384
    config: Config

    @property
    def requires(self) -> tuple[str, ...]:
        return (self.config.column,)

    @property
    def produces(self) -> tuple[Column, ...]:
        name = self.config.column
        host = "host" if name == URL.name else f"{name}_host"
        return (
            Column(host, pa.string(), "host of the URL: lower case, ASCII, without www. and port; null for no URL"),
            Column(f"{name}_extension", pa.string(), "extension of the URL's path: lower case, without its dot"),
        )

    def process(self, batch: pa.Table) -> Part:
        urls = pc.utf8_trim_whitespace(batch.column(self.config.column).cast(pa.string()).combine_chunks())
        parts = pc.extract_regex(urls, _PARTS)
        written = pc.struct_field(parts, "host").dictionary_encode()
        hosts = pa.array([normal_host(host) for host in written.dictionary.to_pylist()], pa.string())
        extensions = pc.struct_field(pc.extract_regex(pc.struct_field(parts, "path"), _EXTENSION), "extension")
        values = (hosts.take(written.indices), pc.ascii_lower(extensions))
        return Part({column.name: value for column, value in zip(self.produces, values, strict=True)})


def normal_host(written: str) -> str | None:
    """A URL's host in the one spelling of this module; None for what is no host."""
    if len(written) > _WRITTEN_CHARS:
        return None
    host = written.lower() if written.isascii() else written
    if not _PLAIN_HOST.fullmatch(host):
        host = _ipv6(host[1:-1]) if host[:1] == "[" else _international(host)
    host = (host or "").removesuffix(".")
    if not host or len(host) > MAX_HOST_CHARS:
        return None
    short = host.removeprefix("www.")
    return short if "." in short else host


def _ipv6(address: str) -> str | None:
    try:
        return ipaddress.IPv6Address(address).compressed
    except ValueError:
        return None


def _international(host: str) -> str | None:
    import idna

    try:
        encoded = idna.encode(unquote(host), uts46=True).decode("ascii")
    except UnicodeError:  # idna's own errors are among them
        return None
    return encoded if _PLAIN_HOST.fullmatch(encoded) else None
