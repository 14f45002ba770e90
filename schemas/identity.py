"""Identity: `uid` says what a sample is, never where it lies in a file or a shard.

128 bits as 32 hex digits, the head of a sha256. The parts of an identity are length-prefixed, so that no two
different tuples of parts give the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

UID_HEX_DIGITS = 32


def uid_of(*parts: str | bytes | None) -> str:
    """The uid of a thing that is described by `parts`, in order; None differs from the empty string."""
    digest = hashlib.sha256()
    for part in parts:
        if part is None:
            digest.update(b"-;")
        else:
            raw = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
            digest.update(b"%d;" % len(raw))
            digest.update(raw)
    return digest.hexdigest()[:UID_HEX_DIGITS]


def uids_of_urls(urls: Iterable[str | None], texts: Iterable[str | None]) -> list[str]:
    """The uids of rows that carry URLs: the URL as given and the text. One URL under two texts is two samples."""
    return [uid_of("url", url, text) for url, text in zip(urls, texts, strict=True)]


def child_uid(parent_uid: str, maker: str, key: str) -> str:
    """The uid of a sample made by us: parent, maker, and integer-microsecond span or index."""
    return uid_of("child", parent_uid, maker, key)
