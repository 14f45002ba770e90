"""Parameters of `download`."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from corpusmith.operators.contract import OPERATIONAL, Config
from corpusmith.operators.fetch.addresses import Allowed

MIB = 2**20


class DownloadConfig(Config):
    """Parameters of `download`."""

    timeout_s: float = Field(
        json_schema_extra=OPERATIONAL,
        default=10.0,
        gt=0,
        le=3600,
        description="seconds for one attempt, redirects and body included; waiting for a turn is not part of it",
    )
    connect_timeout_s: float = Field(
        json_schema_extra=OPERATIONAL,
        default=5.0,
        gt=0,
        le=3600,
        description="seconds for a name lookup, and for a connection",
    )
    idle_timeout_s: float = Field(
        json_schema_extra=OPERATIONAL, default=5.0, gt=0, le=3600, description="seconds that a server may stay silent"
    )
    retries: int = Field(
        json_schema_extra=OPERATIONAL,
        default=2,
        ge=0,
        le=20,
        description="further attempts after connection errors, time-outs and status 408, 425, 429, 5xx",
    )
    backoff_max_s: float = Field(
        json_schema_extra=OPERATIONAL,
        default=30.0,
        ge=0,
        le=600,
        description="seconds to wait before a retry at most, also where Retry-After asks for more",
    )
    max_bytes: int = Field(default=20 * MIB, ge=1, description="bytes of a body at most, as sent and as decompressed")
    max_redirects: int = Field(default=5, ge=0, le=30, description="redirects followed at most")
    concurrency: int = Field(
        json_schema_extra=OPERATIONAL,
        default=64,
        ge=1,
        le=4096,
        description="requests in flight in each worker; one whose server is silent for 0.25 s no longer counts, "
        "up to four times as many",
    )
    per_host: int = Field(
        json_schema_extra=OPERATIONAL,
        default=8,
        ge=1,
        le=4096,
        description="requests in flight to one host, in the run as a whole (a worker has one at least)",
    )
    per_host_rate: float = Field(
        json_schema_extra=OPERATIONAL,
        default=0.0,
        ge=0,
        le=100_000,
        description="requests that are begun to one host each second, in the run as a whole; 0 for no limit",
    )
    max_bytes_per_s: int = Field(
        json_schema_extra=OPERATIONAL,
        default=0,
        ge=0,
        description="bytes of bodies received each second, in the run as a whole; 0 for no limit",
    )
    allow_hosts: tuple[str, ...] = Field(
        default=(), description="host names, addresses or networks (10.0.0.0/8) to contact although private or local"
    )
    allow_schemes: tuple[Literal["s3", "gs", "file"], ...] = Field(
        default=(),
        description="what else a URL may be than http(s): s3 and gs with the credentials of this machine, file for any "
        "file that this user can read; only for lists of URLs that you trust as you trust a program",
    )
    user_agent: str = Field(
        json_schema_extra=OPERATIONAL,
        default="corpusmith (+https://example.org/contact)",
        pattern=r"^[\x20-\x7e]+$",
        description="User-Agent header; put a page there that tells site owners who crawls",
    )
    disallowed_header_directives: tuple[str, ...] = Field(
        default=("noai", "noimageai", "noindex", "noimageindex"),
        description="X-Robots-Tag directives that opt media out; an empty list ignores the header",
    )
    robots: bool = Field(
        default=False, description="fetch each site's robots.txt (RFC 9309) and keep to it, Crawl-delay included"
    )
    hash_column: str | None = Field(
        default=None, description="column with the expected hash of the bytes, in hex; a download without it fails"
    )
    hash_type: Literal["md5", "sha256", "sha512"] = Field(
        default="sha256", description="what kind of hash hash_column holds"
    )
    recent_max_bytes: int = Field(
        json_schema_extra=OPERATIONAL,
        default=64 * MIB,
        ge=0,
        description="bytes of recent bodies kept for repeats of a URL",
    )

    waiting_max_bytes: int = Field(
        json_schema_extra=OPERATIONAL,
        default=256 * MIB,
        ge=1,
        description="bytes of bodies that wait in each worker for the next step; above it no request begins",
    )

    @field_validator("allow_hosts")
    @classmethod
    def _are_hosts(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        Allowed.of(entries)
        return entries

    @property
    def agent_token(self) -> str:
        """The name by which robots.txt and X-Robots-Tag address this downloader."""
        return re.split(r"[/\s]", self.user_agent, maxsplit=1)[0]
