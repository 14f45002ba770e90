"""Which addresses a download may contact.

URLs are hostile: one that names a machine of the user's own network, or a cloud's metadata service, turns a crawl
into an attack from the inside. A host name says nothing, for its owner decides what it resolves to, and may answer
differently a second later; so the judge is asked again at the last moment, with the address that a socket is about to
be opened for (see transfer.py), and no answer of a resolver can change between check and use.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

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

HOST_NAME = re.compile(r"[a-z0-9._-]+", re.IGNORECASE)
_NUMERIC_LABEL = re.compile(r"(\d+|0x[0-9a-f]*)", re.IGNORECASE)


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
                if not HOST_NAME.fullmatch(entry) or is_numeric(entry):
                    raise ValueError(f"{entry!r} is no host name, address or network (10.0.0.0/8)") from None
                names.add(_plain(entry))
        return Allowed(frozenset(names), tuple(networks))

    def refusal(self, address: Address) -> str | None:
        """Why an address may not be contacted, or None if it may."""
        forms = [form for form in (address, embedded_v4(address)) if form is not None]
        if any(form in network for form in forms for network in self.networks):
            return None
        return address_refusal(address)

    def refusal_of(self, host: str, address: str) -> str | None:
        """Why a host may not be contacted at an address, given as text, or None if it may."""
        return None if _plain(host) in self.names else self.refusal(ip_address(address))


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


def is_numeric(host: str) -> bool:
    """Whether a host would be taken for an IPv4 address: its last label is a number (WHATWG URL, section 3.5)."""
    return _NUMERIC_LABEL.fullmatch(host.rstrip(".").rpartition(".")[2]) is not None


def _plain(host: str) -> str:
    return host.rstrip(".").lower()
