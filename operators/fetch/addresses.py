"""Which addresses a download may contact, and the resolver that refuses the others.

URLs are hostile: one that names a machine of the user's own network, or a cloud's metadata service, turns a crawl
into an attack from the inside. A host name says nothing, for its owner decides what it resolves to, and may answer
differently a second later; so names are judged by the resolver that the connection itself uses: the address that
was checked is the address that is connected to. Literal addresses never reach a resolver and are judged with the URL.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from yarl import URL

from corpusmith.schemas.fates import RowFailed
from corpusmith.schemas.urls import redact_url

if TYPE_CHECKING:
    from aiohttp.abc import AbstractResolver, ResolveResult
else:
    AbstractResolver = object  # aiohttp is imported when a download opens; it takes any object with these methods

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAX_URL_CHARACTERS = 16384

_REFUSED_V4 = {
    "0.0.0.0/8": "unspecified",
    "10.0.0.0/8": "private",
    "100.64.0.0/10": "shared by carrier-grade NAT",
    "127.0.0.0/8": "loopback",
    "168.63.129.16/32": "a cloud's metadata service",
    "169.254.169.254/32": "a cloud's metadata service",
    "169.254.0.0/16": "link-local",
    "172.16.0.0/12": "private",
    "192.0.0.0/24": "reserved",
    "192.0.2.0/24": "reserved for documentation",
    "192.88.99.0/24": "reserved",
    "192.168.0.0/16": "private",
    "198.18.0.0/15": "reserved for benchmarks",
    "198.51.100.0/24": "reserved for documentation",
    "203.0.113.0/24": "reserved for documentation",
    "224.0.0.0/4": "multicast",
    "240.0.0.0/4": "reserved",
}
_REFUSED_V6 = {
    "::/128": "unspecified",
    "::1/128": "loopback",
    "2001::/23": "reserved",
    "2001:db8::/32": "reserved for documentation",
    "3fff::/20": "reserved for documentation",
    "fc00::/7": "private",
    "fe80::/10": "link-local",
    "fec0::/10": "private",
    "ff00::/8": "multicast",
}
_REFUSED = [(ip_network(network), label) for network, label in (_REFUSED_V4 | _REFUSED_V6).items()]
"""IANA's special-purpose registries, written down so that the rule is the same under every Python."""

_GLOBAL_V6 = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")

_SCHEME = re.compile(r"\s*([a-z][a-z0-9+-]*):", re.IGNORECASE)
_HOST_NAME = re.compile(r"[a-z0-9._-]+", re.IGNORECASE)
_NUMERIC_LABEL = re.compile(r"(\d+|0x[0-9a-f]*)", re.IGNORECASE)
_LEGAL = "!$%&'()*+,-./:;=?@[]^_|~"


class TransientFailure(RowFailed):
    """A failure that the next attempt may not meet; `wait_s` is how long the server asks to wait, if it does."""

    def __init__(self, error: str, message: str = "", wait_s: float | None = None) -> None:
        super().__init__(error, message)
        self.wait_s = wait_s


@dataclass(frozen=True)
class Allowed:
    """Hosts that may be contacted although their addresses would be refused."""

    names: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()

    @staticmethod
    def of(entries: Iterable[str]) -> Allowed:
        """Read host names, addresses and CIDR networks.

        Raises:
            ValueError: an entry is none of these.
        """
        names: set[str] = set()
        networks: list[Network] = []
        for entry in entries:
            try:
                networks.append(ip_network(entry.strip("[]"), strict=False))
            except ValueError:
                if not _HOST_NAME.fullmatch(entry) or _is_numeric(entry):
                    raise ValueError(f"{entry!r} is no host name, address or network (10.0.0.0/8)") from None
                names.add(_plain(entry))
        return Allowed(frozenset(names), tuple(networks))

    def refusal(self, address: Address) -> str | None:
        """Why an address may not be contacted, or None if it may."""
        forms = [form for form in (address, embedded_v4(address)) if form is not None]
        if any(form in network for form in forms for network in self.networks):
            return None
        return address_refusal(address)

    def has_name(self, host: str) -> bool:
        """Whether a host is allowed by its name, whatever it resolves to."""
        return _plain(host) in self.names


def embedded_v4(address: Address) -> IPv4Address | None:
    """The IPv4 address that an IPv4-mapped, 6to4 or NAT64 (RFC 6052) address leads to."""
    if isinstance(address, IPv4Address):
        return None
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def address_refusal(address: Address) -> str | None:
    """What kind of special-purpose address this is, or None for one of the public Internet."""
    inner = embedded_v4(address)
    if inner is not None:
        label = address_refusal(inner)
        return label and f"{label} ({inner})"
    for network, label in _REFUSED:
        if address in network:
            return label
    return "reserved" if isinstance(address, IPv6Address) and address not in _GLOBAL_V6 else None


def checked_url(text: str, allowed: Allowed) -> URL:
    """The URL to request: as given, only characters that HTTP cannot carry percent-encoded, the fragment left out.

    Escapes that are there stay as they are, because signed URLs break when they are written differently.

    Raises:
        RowFailed: `scheme refused`, `invalid URL`, or `address refused` for a literal address.
    """
    scheme = _SCHEME.match(text)
    if scheme and scheme[1].lower() not in ("http", "https"):
        raise RowFailed("scheme refused", f"{scheme[1].lower()[:32]}: only http and https are fetched")
    if not scheme or len(text) > MAX_URL_CHARACTERS:
        raise RowFailed("invalid URL", "no scheme" if not scheme else f"{len(text)} characters")
    try:
        parts = urlsplit(text.strip())
        url = _built(parts, _ascii_host(parts))
    except ValueError as error:
        raise RowFailed("invalid URL", redact_url(text)[:300]) from error
    _check_literal(url.raw_host or "", allowed)
    return url


def redirect_target(url: URL, location: str, allowed: Allowed) -> URL:
    """The URL that a Location header names, relative or absolute; judged as any other.

    Raises:
        RowFailed: as checked_url().
    """
    try:
        target = urljoin(str(url), location)
    except ValueError as error:
        raise RowFailed("invalid URL", redact_url(location)[:300]) from error
    return checked_url(target, allowed)


def _ascii_host(parts: SplitResult) -> str:
    if "@" in parts.netloc or not parts.hostname or parts.port == 0:
        raise ValueError("user name, missing host, or port 0")
    host = URL.build(scheme="http", host=parts.hostname).raw_host or ""
    if ":" not in host and not _HOST_NAME.fullmatch(host):
        raise ValueError("illegal characters in host")
    return host


def _built(parts: SplitResult, host: str) -> URL:
    host = f"[{host}]" if ":" in host else host
    path, query = (quote(part, safe=_LEGAL, errors="surrogateescape") for part in (parts.path or "/", parts.query))
    return URL.build(scheme=parts.scheme, host=host, port=parts.port, path=path, query_string=query, encoded=True)


def _check_literal(host: str, allowed: Allowed) -> None:
    if ":" not in host and not _is_numeric(host):
        return
    try:
        address = ip_address(host)
    except ValueError:
        raise RowFailed("address refused", f"{host[:64]} is an unusual spelling of an address") from None
    label = "an address with a zone" if "%" in host else allowed.refusal(address)
    if label:
        raise RowFailed("address refused", f"{host} is {label}")


def _is_numeric(host: str) -> bool:
    """Whether a host would be taken for an IPv4 address: its last label is a number (WHATWG URL, section 3.5)."""
    return _NUMERIC_LABEL.fullmatch(host.rstrip(".").rpartition(".")[2]) is not None


def _plain(host: str) -> str:
    return host.rstrip(".").lower()


class GuardedResolver(AbstractResolver):
    """Resolves host names by the system's resolver, in threads of its own, and hands on public addresses alone."""

    def __init__(self, allowed: Allowed, timeout_s: float, threads: int) -> None:
        self._allowed = allowed
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="resolve")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Addresses of a host that may be contacted.

        Raises:
            RowFailed: `DNS failure` (transient if the resolver says so), or `address refused` if none may be.
        """
        addresses = await self._lookup(host, port, family)
        refusals = (
            {} if self._allowed.has_name(host) else {a: self._allowed.refusal(ip_address(a)) for _, a in addresses}
        )
        usable = [(kind, a) for kind, a in addresses if not refusals.get(a)]
        if not usable:
            told = ", ".join(f"{a} is {label}" for a, label in refusals.items())
            raise RowFailed("address refused", f"{host}: {told}"[:300])
        return [
            {"hostname": host, "host": a, "port": port, "family": kind, "proto": 0, "flags": socket.AI_NUMERICHOST}
            for kind, a in usable
        ]

    async def _lookup(self, host: str, port: int, family: int) -> list[tuple[int, str]]:
        def look_up() -> list[tuple[int, str]]:
            found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
            return [(kind, str(address[0])) for kind, _, _, _, address in found]

        try:
            async with asyncio.timeout(self._timeout_s):
                addresses = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        except TimeoutError:
            raise TransientFailure("DNS failure", f"{host}: no answer within {self._timeout_s:g} s") from None
        except socket.gaierror as error:
            kind = TransientFailure if error.errno == socket.EAI_AGAIN else RowFailed
            raise kind("DNS failure", f"{host}: {error.strerror}") from None
        except (OSError, UnicodeError) as error:
            raise RowFailed("DNS failure", f"{host}: {type(error).__name__}") from None
        if not addresses:
            raise RowFailed("DNS failure", f"{host}: no addresses")
        return addresses

    async def close(self) -> None:
        """Let the threads go; a lookup that hangs is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
