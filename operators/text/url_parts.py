"""url_parts: the host that a URL names, the domain that the host belongs to, and the extension of the path.

Hosts come in one spelling, so that they can be counted: lower case, international names in their ASCII form (UTS 46),
without port, user name, trailing dot and a leading `www.`. `a.example.co.uk` and `b.example.co.uk` are two hosts; with
`domain: true` they are one domain, the part of the host that somebody registered or a provider gave away
(`somebody.github.io`). It is cut at the Public Suffix List (Mozilla, MPL-2.0), both parts of it, as the package
`publicsuffixlist` (MPL-2.0) bundles it; nothing is fetched. A host that has no such part, an address among them, is its
own domain.

What is no URL with a host gives null, never an error.
"""

from __future__ import annotations

import ipaddress
import re
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from corpusmith.operators.contract import Annotate, Part
from corpusmith.operators.contract import Config as BaseConfig
from corpusmith.schemas.columns import URL, Column

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList

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
_IPV4 = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){3}")
_WRITTEN_CHARS = 4 * MAX_HOST_CHARS
"""A host's characters before it is decoded; a longer one is none."""


class UrlParts(Annotate, name="url_parts", version=1):
    """Read the host, its domain and the path's extension off the URL."""

    class Config(BaseConfig):
        column: str = Field(default=URL.name, description="column that holds the URL")
        domain: bool = Field(
            default=False,
            description="also tell the registrable domain of the host, such as example.co.uk of a.example.co.uk, for a "
            "quota by it",
        )

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
        prefix = "" if name == URL.name else f"{name}_"
        domain = Column(f"{prefix}domain", pa.string(), "registrable domain of the host; the host where it has none")
        return (
            Column(
                f"{prefix}host",
                pa.string(),
                "host of the URL: lower case, ASCII, without www. and port; null for no URL",
            ),
            Column(f"{name}_extension", pa.string(), "extension of the URL's path: lower case, without its dot"),
            *([domain] if self.config.domain else []),
        )

    def process(self, batch: pa.Table) -> Part:
        urls = pc.utf8_trim_whitespace(batch.column(self.config.column).cast(pa.string()).combine_chunks())
        parts = pc.extract_regex(urls, _PARTS)
        written = pc.struct_field(parts, "host").dictionary_encode()
        hosts = [normal_host(host) for host in written.dictionary.to_pylist()]
        extensions = pc.struct_field(pc.extract_regex(pc.struct_field(parts, "path"), _EXTENSION), "extension")
        values = [pa.array(hosts, pa.string()).take(written.indices), pc.ascii_lower(extensions)]
        if self.config.domain:
            domains = [host and registrable_domain(host) for host in hosts]
            values.append(pa.array(domains, pa.string()).take(written.indices))
        return Part({column.name: value for column, value in zip(self.produces, values, strict=True)})


def normal_host(written: str) -> str | None:
    """A URL's host in the one spelling of this module; None for what is no host."""
    host = ascii_host(written)
    if host is None:
        return None
    short = host.removeprefix("www.")
    return short if "." in short else host


def ascii_host(written: str) -> str | None:
    """A URL's host in lower case and ASCII, without a trailing dot; None for what is no host."""
    if len(written) > _WRITTEN_CHARS:
        return None
    host = written.lower() if written.isascii() else written
    if not _PLAIN_HOST.fullmatch(host):
        host = _ipv6(host[1:-1]) if host[:1] == "[" else _international(host)
    host = (host or "").removesuffix(".")
    return host if host and len(host) <= MAX_HOST_CHARS else None


def registrable_domain(host: str) -> str:
    """The part of a host, as `normal_host` gives it, that somebody registered; the host itself where it has none."""
    if ":" in host or _IPV4.fullmatch(host):
        return host
    return _suffixes().privatesuffix(host) or host


@cache
def _suffixes() -> PublicSuffixList:
    from publicsuffixlist import PublicSuffixList

    return PublicSuffixList()


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
