"""Identity: `uid` says what a sample is, never where it lies in a file or a shard.

128 bits as 32 hex digits, the head of a sha256. The parts of an identity are length-prefixed, so that no two
different tuples of parts give the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

UID_HEX_DIGITS = 32

_NONE = b"-;"


def uid_of(*parts: str | bytes | None) -> str:
    """The uid of a thing that is described by `parts`, in order; None differs from the empty string."""
    digest = hashlib.sha256()
    for part in parts:
        if part is None:
            digest.update(_NONE)
        else:
            raw = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
            digest.update(b"%d;" % len(raw))
            digest.update(raw)
    return digest.hexdigest()[:UID_HEX_DIGITS]


def uids_of_urls(urls: Iterable[str | None], texts: Iterable[str | None]) -> list[str]:
    """The uids of rows that carry URLs: the URL as given and the text. One URL under two texts is two samples."""
    return _uids("url", [urls, texts])


def uids_of_media(sha256s: Iterable[str | None], texts: Iterable[str | None]) -> list[str]:
    """The uids of rows without URLs: the sha256 of the media's bytes, 64 hex digits, and the text."""
    return _uids("media", [sha256s, texts])


def _uids(kind: str, columns: Sequence[Iterable[str | None]]) -> list[str]:
    """`uid_of(kind, *values)` of each row; the parts are framed in Arrow, since inputs have millions of rows."""
    framed: list[pa.Array | pa.Scalar] = [pa.scalar(b"%d;%b" % (len(kind), kind.encode()), pa.large_binary())]
    for column in columns:
        values = column if isinstance(column, pa.Array | pa.ChunkedArray) else pa.array(column, pa.large_string())
        values = pc.cast(values, pa.large_binary())
        lengths = pc.cast(pc.cast(pc.binary_length(values), pa.string()), pa.large_binary())
        one = pc.binary_join_element_wise(lengths, values, pa.scalar(b";", pa.large_binary()))
        framed.append(pc.fill_null(one, _NONE))
    joined = pc.binary_join_element_wise(*framed, pa.scalar(b"", pa.large_binary()))
    sha256 = hashlib.sha256
    return [sha256(value).hexdigest()[:UID_HEX_DIGITS] for value in joined.to_pylist()]


def child_uid(parent_uid: str, maker: str, key: str) -> str:
    """The uid of a sample made by us: parent, maker, and integer-microsecond span or index."""
    return uid_of("child", parent_uid, maker, key)
