"""Members of tars that anybody may have written: walked header by header, whatever the headers say.

A corpus's own tars are read by `operators.write.tar`, which refuses what is not perfect. Here the opposite is wanted:
all that can be told for certain, up to where nothing can be. Names are data and never used as paths. Data is read from
start to end in bounded pieces, so that a size that lies costs neither memory nor a wrong byte.

Formats: POSIX.1-1988 ustar and POSIX.1-2001 pax (pax, "ustar Interchange Format" and "pax Header Block"), GNU long
names, base-256 sizes and sparse headers (GNU tar manual, "Basic Tar Format").
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

BLOCK_BYTES = 512
MAX_EXTENSION_BYTES = 1 << 24
"""A longer name or pax header is no name."""

_ZEROS = bytes(BLOCK_BYTES)
_PIECE_BYTES = 1 << 20
_MAX_BYTES = 1 << 60
_OCTAL = re.compile(rb"[ \0]*([0-7]*)[ \0]*\Z")
_PAX_LENGTH = re.compile(rb"([1-9][0-9]{0,8}) ")
_BLANKED_SUM = 8 * ord(" ")
_EMPTY_KINDS = frozenset((b"1", b"2", b"3", b"4", b"5", b"6"))
"""Links, devices, folders, pipes: no data follows, whatever their size says."""
_KIND_NAMES = {
    b"1": "link",
    b"2": "link",
    b"3": "device",
    b"4": "device",
    b"5": "folder",
    b"6": "pipe",
    b"S": "sparse file",
}


class BrokenTarError(ValueError):
    """Nothing behind this place of the archive can be read."""


class Member(NamedTuple):
    """An entry of an archive.

    Args:
        name: as the archive spells it; bytes that are no UTF-8 as lone surrogates.
        offset, size: of its data in the archive.
        special: what it is, if it is no regular file; empty for one.
    """

    name: str
    offset: int
    size: int
    special: str


@dataclass
class _Extended:
    """What extension headers say of the next member."""

    name: bytes | None = None
    size: int | None = None
    is_sparse: bool = False


class TarWalk:
    """One walk through an archive, from start to end.

    Args:
        stream: buffered binary file at its start, seekable for skipping or not.
        size: bytes of the archive; 0 where that is not known.
    """

    def __init__(self, stream: Any, size: int) -> None:
        self._stream = stream
        self._end = size or _MAX_BYTES
        self._at = 0
        self._is_seekable = stream.seekable()

    def members(self) -> Iterator[Member]:
        """The entries in order. Between two of them, the data of the first may be read with `data`.

        Raises:
            BrokenTarError: a header is wrong, or the archive ends before its end.
        """
        extended = _Extended()
        while True:
            start = self._at
            block = self._take(BLOCK_BYTES)
            if len(block) < BLOCK_BYTES:
                raise BrokenTarError(f"it ends at byte {self._at} without an end: it is cut short")
            if block == _ZEROS:
                return
            kind = block[156:157]
            size = _size(block, start)
            if kind in b"xL":
                self._extend(extended, kind, size, start)
            elif kind in b"gKVN":
                self._pass(size)
            else:
                yield from self._member(block, kind, size, extended, start)
                extended = _Extended()

    def _member(self, block: bytes, kind: bytes, size: int, extended: _Extended, start: int) -> Iterator[Member]:
        if kind in _EMPTY_KINDS:
            size = 0
        elif extended.size is not None:
            size = extended.size
        if kind == b"S":
            self._pass_sparse_map(block)
        name = extended.name if extended.name is not None else _name(block)
        special = _KIND_NAMES.get(kind, "" if kind in b"0\x007" else "file of an unknown kind")
        if extended.is_sparse:
            special = "sparse file"
        elif kind in b"0\0" and name.endswith(b"/"):
            special = "folder"
        offset = self._at
        if offset + size > self._end:
            shown = ascii(name.decode("utf-8", "replace")[:60])
            raise BrokenTarError(
                f"the member {shown} at byte {start} has {size} bytes by its header, which reach past the end"
            )
        yield Member(name.decode("utf-8", "surrogateescape"), offset, size, special)
        self._to(offset + size + -size % BLOCK_BYTES)

    def data(self, member: Member, take: Callable[[bytes], object]) -> None:
        """Hand the data of the member at hand over, piece by piece.

        Raises:
            BrokenTarError: the archive ends before the data does.
        """
        left = member.size
        while left:
            piece = self._take(min(left, _PIECE_BYTES))
            if not piece:
                raise BrokenTarError(f"it ends at byte {self._at}, within a member: it is cut short")
            take(piece)
            left -= len(piece)

    def _extend(self, extended: _Extended, kind: bytes, size: int, start: int) -> None:
        if size > MAX_EXTENSION_BYTES:
            raise BrokenTarError(f"the extended header at byte {start} has {size} bytes by its own word")
        end = self._at + size + -size % BLOCK_BYTES
        data = self._take(size)
        if len(data) < size:
            raise BrokenTarError(f"it ends at byte {self._at}, within a header: it is cut short")
        self._to(end)
        if kind == b"L":
            extended.name = data.partition(b"\0")[0]
            return
        for key, value in _pax_records(data, start):
            if key == b"path":
                extended.name = value
            elif key == b"size":
                extended.size = _decimal(value, start)
            elif key.startswith(b"GNU.sparse."):
                extended.is_sparse = True

    def _pass_sparse_map(self, block: bytes) -> None:
        is_more = block[482:483] not in (b"\0", b"")
        while is_more:
            block = self._take(BLOCK_BYTES)
            is_more = block[504:505] not in (b"\0", b"")

    def _pass(self, size: int) -> None:
        self._to(self._at + size + -size % BLOCK_BYTES)

    def _to(self, place: int) -> None:
        if place <= self._at:
            return
        if place > self._end + BLOCK_BYTES:
            raise BrokenTarError(f"a header says that the next one is at byte {place}, past the end")
        if self._is_seekable and place - self._at > BLOCK_BYTES:
            self._stream.seek(place)
            self._at = place
            return
        while self._at < place and self._take(min(place - self._at, _PIECE_BYTES)):
            pass

    def _take(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._at += len(data)
        return data


def _size(block: bytes, start: int) -> int:
    """The size field of a header whose checksum holds.

    Raises:
        BrokenTarError: it does not, or the size is no number.
    """
    told = _OCTAL.match(block[148:156])
    unsigned = sum(block) - sum(block[148:156]) + _BLANKED_SUM
    if told is None or not told[1] or int(told[1], 8) not in (unsigned, unsigned - 256 * _high_bytes(block)):
        raise BrokenTarError(f"the header at byte {start} has a wrong checksum")
    field = block[124:136]
    if field[0] & 0x80:
        size = int.from_bytes(field, "big", signed=True) if field[0] == 0xFF else int.from_bytes(field[1:], "big")
    else:
        number = _OCTAL.match(field)
        size = int(number[1] or b"0", 8) if number is not None else -1
    if not 0 <= size < _MAX_BYTES:
        raise BrokenTarError(f"the header at byte {start} gives no size that can be")
    return size


def _high_bytes(block: bytes) -> int:
    """How many bytes old tars count as negative in a checksum."""
    return sum(byte > 127 for byte in block[:148] + block[156:])


def _name(block: bytes) -> bytes:
    name = block[:100].partition(b"\0")[0]
    prefix = block[345:500].partition(b"\0")[0] if block[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _decimal(value: bytes, start: int) -> int:
    if not re.fullmatch(rb"[0-9]{1,18}", value):
        raise BrokenTarError(f"the extended header at byte {start} gives no size that can be")
    return int(value)


def _pax_records(data: bytes, start: int) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at < len(data) and data[at] != 0:
        length = _PAX_LENGTH.match(data, at)
        end = at + int(length[1]) if length else 0
        key, equals, value = data[length.end() : end].partition(b"=") if length else (b"", b"", b"")
        if not equals or end > len(data) or not value.endswith(b"\n"):
            raise BrokenTarError(f"the extended header at byte {start} is malformed")
        yield key, value[:-1]
        at = end
