"""From a URL as given to what is requested: judged, and as near to the given text as HTTP can carry.

Escapes that are there stay as they are, because signed URLs break when they are written differently. Literal
addresses never reach a resolver, so they are judged here already, unusual spellings of them included.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import SplitResult, quote, urljoin, urlsplit

import idna

from corpusmith.operators.fetch.addresses import HOST_NAME, Allowed, is_numeric
from corpusmith.schemas.fates import RowFailed
from corpusmith.schemas.urls import redact_url

MAX_URL_CHARACTERS = 16384

_SCHEME = re.compile(r"\s*([a-z][a-z0-9+-]*):", re.IGNORECASE)
_LEGAL = "!$%&'()*+,-./:;=?@[]^_|~"
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Site:
    """Whom a URL asks.

    Args:
        prefix: the URL up to its path.
        scheme: `http` or `https`.
        host: ASCII, lower case, an IPv6 address without brackets.
        port: the URL's, or the scheme's own.
        is_literal: whether the host is an address.
    """

    prefix: str
    scheme: str
    host: str
    port: int
    is_literal: bool

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Target:
    """An http(s) URL that may be requested.

    Args:
        url: the text to request, ASCII, without a fragment.
        site: whom it asks.
    """

    url: str
    site: Site

    @property
    def path(self) -> str:
        """Path and query."""
        return self.url[len(self.site.prefix) :]


def scheme_of(text: str) -> str | None:
    """A URL's scheme in lower case; None if it has none."""
    scheme = _SCHEME.match(text)
    return scheme[1].lower() if scheme else None


def checked_url(text: str, allowed: Allowed) -> Target:
    """What to request for a URL: only characters that HTTP cannot carry percent-encoded, the fragment left out.

    Raises:
        RowFailed: `scheme refused`, `invalid URL`, or `address refused` for a literal address.
    """
    scheme = scheme_of(text)
    if scheme not in _DEFAULT_PORTS and scheme is not None:
        raise RowFailed("scheme refused", f"{scheme[:32]}: only http and https are fetched")
    if not scheme or len(text) > MAX_URL_CHARACTERS:
        raise RowFailed("invalid URL", "no scheme" if not scheme else f"{len(text)} characters")
    try:
        parts = urlsplit(text.strip())
        site = _site(scheme, parts.netloc, allowed)
        path = quote(parts.path or "/", safe=_LEGAL, errors="surrogateescape")
        query = quote(parts.query, safe=_LEGAL, errors="surrogateescape")
    except ValueError as error:
        raise RowFailed("invalid URL", redact_url(text)[:300]) from error
    return Target(f"{site.prefix}{path}{'?' + query if query else ''}", site)


def redirect_target(target: Target, location: str, allowed: Allowed) -> Target:
    """What a Location header names, relative or absolute; judged as any other.

    Raises:
        RowFailed: as checked_url().
    """
    try:
        joined = urljoin(target.url, location)
    except ValueError as error:
        raise RowFailed("invalid URL", redact_url(location)[:300]) from error
    return checked_url(joined, allowed)


@lru_cache(maxsize=16384)
def _site(scheme: str, netloc: str, allowed: Allowed) -> Site:
    """Judge what stands between scheme and path; most URLs of a list share it with others."""
    parts = SplitResult(scheme, netloc, "", "", "")
    host = _ascii_host(parts)
    shown = f"[{host}]" if ":" in host else host
    port = f":{parts.port}" if parts.port is not None else ""
    is_literal = _is_allowed_literal(host, allowed)
    return Site(f"{scheme}://{shown}{port}", scheme, host, parts.port or _DEFAULT_PORTS[scheme], is_literal)


def _ascii_host(parts: SplitResult) -> str:
    host = parts.hostname
    if "@" in parts.netloc or not host or parts.port == 0:
        raise ValueError("user name, missing host, or port 0")
    if not host.isascii():
        host = idna.encode(host, uts46=True).decode("ascii")
    if ":" not in host and not HOST_NAME.fullmatch(host):
        raise ValueError("illegal characters in host")
    return host


def _is_allowed_literal(host: str, allowed: Allowed) -> bool:
    """Whether a host is a literal address, which then may be contacted."""
    if ":" not in host and not is_numeric(host):
        return False
    try:
        address = ip_address(host)
    except ValueError:
        raise RowFailed("address refused", f"{host[:64]} is an unusual spelling of an address") from None
    label = "an address with a zone" if "%" in host else allowed.refusal(address)
    if label:
        raise RowFailed("address refused", f"{host} is {label}")
    return True
