"""Tar archives, written fast and to the same bytes each time, and read back as an index of offsets.

A corpus of small images is mostly tar headers to a general tar library: building one costs more than copying the
image behind it. Here a header is a constant template with the name, the size and a checksum filled in, members are
collected into large writes, and nothing of the machine (user, clock) enters the bytes. The format is POSIX.1-1988
ustar; a name that ustar cannot hold gets a POSIX.1-2001 (PAX) `path` record, a size of 8 GiB or more the base-256
field that GNU tar introduced and all common readers know.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import TracebackType
from typing import BinaryIO, NamedTuple

BLOCK_BYTES = 512
RECORD_BYTES = 10240
"""An archive is padded to a multiple of this, as tar has done since tapes."""

_CHUNK_BYTES = 1 << 20
_ZEROS = bytes(RECORD_BYTES)
_NAME_BYTES = 100
_PREFIX_BYTES = 155
_OCTAL_SIZE_LIMIT = 8**11
_PAX_LIMIT_BYTES = 1 << 20

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}")

_OWNER = b"0000644\0" + b"0000000\0" * 2
_MTIME = b"00000000000\0"
_CHECKSUM_BLANK = b" " * 8
_MAGIC = b"ustar\x0000"
_AFTER_TYPE = bytes(100) + _MAGIC + bytes(64 + 16)
_PLAIN_TAIL = b"0" + _AFTER_TYPE + bytes(_PREFIX_BYTES + 12)
_PLAIN_SUM = sum(_OWNER + _MTIME + _CHECKSUM_BLANK + _PLAIN_TAIL)

_REGULAR_TYPES = frozenset((b"0", b"\0", b"7"))
_EMPTY_TYPES = frozenset((b"1", b"2", b"3", b"4", b"5", b"6"))
"""Links, devices and folders: no data follows, whatever their size field says."""


class DamagedTarError(ValueError):
    """The bytes are not a complete, well-formed tar archive."""


class Member(NamedTuple):
    """One file of an archive: its bytes are `size` bytes from `offset` of the archive."""

    name: str
    offset: int
    size: int


class TarWriter:
    """Writes members one after the other; holds at most one chunk of about 1 MiB beside the member at hand.

    Args:
        fileobj: buffered binary file, written from its present position, which becomes offset 0 of the index. Left
            open by close().
    """

    def __init__(self, fileobj: BinaryIO) -> None:
        self.members: list[Member] = []
        self._file = fileobj
        self._parts: list[bytes] = []
        self._waiting_bytes = 0
        self._position = 0
        self._is_closed = False

    def add(self, name: str, data: bytes) -> Member:
        """Append one file; returns where its bytes will lie.

        Raises:
            ValueError: the name is absolute, climbs with `..`, ends in `/`, is empty, or holds a NUL or a line break;
                or the writer is closed.
        """
        if self._is_closed:
            raise ValueError("the archive is closed")
        size = len(data)
        head = _plain_head(name, size) if _PLAIN_NAME.fullmatch(name) else _any_head(name, size)
        padding = -size % BLOCK_BYTES
        member = Member(name, self._position + len(head), size)
        self.members.append(member)
        self._position = member.offset + size + padding
        self._parts += (head, data, _ZEROS[:padding]) if size < _CHUNK_BYTES else (head,)
        self._waiting_bytes += len(head) + size + padding
        if self._waiting_bytes >= _CHUNK_BYTES:
            self._flush()
        if size >= _CHUNK_BYTES:
            self._write(data)
            self._parts.append(_ZEROS[:padding])
        return member

    def close(self) -> None:
        """Write the end of the archive. Without it the archive is damaged."""
        if self._is_closed:
            return
        end = self._position + 2 * BLOCK_BYTES
        self._parts.append(bytes(2 * BLOCK_BYTES + -end % RECORD_BYTES))
        self._flush()
        self._is_closed = True

    def __enter__(self) -> TarWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.close()

    def _flush(self) -> None:
        self._write(b"".join(self._parts))
        self._parts.clear()
        self._waiting_bytes = 0

    def _write(self, data: bytes) -> None:
        written = self._file.write(data)
        if written is not None and written != len(data):
            raise OSError(f"only {written} of {len(data)} bytes were written")


def _plain_head(name: str, size: int) -> bytes:
    """The header of a file whose name is ASCII of at most 100 bytes."""
    raw = name.encode("ascii")
    size_field = _size_field(size)
    checksum = _PLAIN_SUM + sum(raw) + sum(size_field)
    return b"".join(
        (raw.ljust(_NAME_BYTES, b"\0"), _OWNER, size_field, _MTIME, b"%06o\0 " % checksum, _PLAIN_TAIL),
    )


def _size_field(size: int) -> bytes:
    return b"%011o\0" % size if size < _OCTAL_SIZE_LIMIT else b"\x80" + size.to_bytes(11, "big")


def _any_head(name: str, size: int) -> bytes:
    """The header blocks of a file under any allowed name."""
    raw = _checked(name)
    split = _split(raw) if name.isascii() else None
    if split is not None:
        return _header(split[1], size, b"0", split[0])
    record = _pax_record(b"path", raw)
    stand_in = re.sub(r"[^A-Za-z0-9_.-]", "_", name)[-_NAME_BYTES:].encode("ascii")
    extended = _header(b"././@PaxHeader", len(record), b"x") + record + _ZEROS[: -len(record) % BLOCK_BYTES]
    return extended + _header(stand_in, size, b"0")


def _checked(name: str) -> bytes:
    """The name's bytes.

    Raises:
        ValueError: a reader that extracts by name could write outside its folder, or tools would break on the name.
    """
    if not name or name.startswith("/") or name.endswith("/") or ".." in name.split("/"):
        raise ValueError(f"not a relative file name: {name!r}")
    if any(mark in name for mark in "\0\n\r"):
        raise ValueError(f"a member's name holds a NUL or a line break: {name!r}")
    return name.encode("utf-8")


def _split(raw: bytes) -> tuple[bytes, bytes] | None:
    """Prefix and name of a ustar header, or None when no `/` lies where the two fields need it."""
    if len(raw) <= _NAME_BYTES:
        return b"", raw
    cut = raw.find(b"/", len(raw) - _NAME_BYTES - 1)
    return (raw[:cut], raw[cut + 1 :]) if 0 < cut <= _PREFIX_BYTES else None


def _pax_record(key: bytes, value: bytes) -> bytes:
    """`LENGTH key=value\\n`, where LENGTH counts its own digits (POSIX.1-2001, pax, Extended Header)."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


def _header(name: bytes, size: int, kind: bytes, prefix: bytes = b"") -> bytes:
    head = name.ljust(_NAME_BYTES, b"\0") + _OWNER + _size_field(size) + _MTIME
    tail = kind + _AFTER_TYPE + prefix.ljust(_PREFIX_BYTES + 12, b"\0")
    return head + b"%06o\0 " % sum(head + _CHECKSUM_BLANK + tail) + tail


def read_members(fileobj: BinaryIO) -> Iterator[Member]:
    """The regular files of an archive in order, from its headers alone; data is skipped, never read.

    Knows ustar, PAX paths and sizes, GNU long names and base-256 sizes. Links, folders and devices are passed over.

    Args:
        fileobj: seekable binary file, read from its start.

    Raises:
        DamagedTarError: a header is broken, a member reaches past the end, or the end marker (two zero blocks) is
            missing.
    """
    end = fileobj.seek(0, 2)
    position = 0
    extended: dict[bytes, bytes] = {}
    while True:
        block = _read_at(fileobj, position, BLOCK_BYTES)
        if block == _ZEROS[:BLOCK_BYTES]:
            break
        kind, offset = block[156:157], position + BLOCK_BYTES
        size = _checked_size(block, position) * (kind not in _EMPTY_TYPES)
        if kind in _REGULAR_TYPES and b"size" in extended:
            size = _number(extended[b"size"], 10, position)
        if offset + size > end:
            raise DamagedTarError(f"the member at byte {position} reaches past the end of the archive: it is truncated")
        if kind in (b"x", b"L"):
            extended |= _extension(fileobj, kind, offset, size)
        elif kind not in (b"g", b"K"):
            if kind in _REGULAR_TYPES:
                yield Member(_name_of(block, extended), offset, size)
            extended = {}
        position = offset + size + -size % BLOCK_BYTES
    if _read_at(fileobj, position + BLOCK_BYTES, BLOCK_BYTES) != _ZEROS[:BLOCK_BYTES]:
        raise DamagedTarError(f"the end marker at byte {position} is not complete")


def _read_at(fileobj: BinaryIO, position: int, count: int) -> bytes:
    fileobj.seek(position)
    data = fileobj.read(count)
    if len(data) != count:
        raise DamagedTarError(f"the archive ends at byte {position + len(data)} without an end marker: it is truncated")
    return data


def _checked_size(block: bytes, position: int) -> int:
    """The size field of a header whose checksum holds."""
    expected = _number(block[148:156].strip(b"\0 "), 8, position)
    if sum(block) - sum(block[148:156]) + sum(_CHECKSUM_BLANK) != expected:
        raise DamagedTarError(f"the header at byte {position} has a wrong checksum")
    field = block[124:136]
    if field[0] & 0x80:
        return int.from_bytes(field, "big") & ((1 << 95) - 1)
    return _number(field.strip(b"\0 ") or b"0", 8, position)


def _number(digits: bytes, base: int, position: int) -> int:
    try:
        value = int(digits, base)
    except ValueError:
        value = -1
    if value < 0:
        raise DamagedTarError(f"the header at byte {position} holds no number where one belongs")
    return value


def _extension(fileobj: BinaryIO, kind: bytes, offset: int, size: int) -> dict[bytes, bytes]:
    """What a PAX or GNU long-name block says of the next member."""
    if size > _PAX_LIMIT_BYTES:
        raise DamagedTarError(f"the extended header at byte {offset} claims {size} bytes")
    data = _read_at(fileobj, offset, size)
    if kind == b"L":
        return {b"path": data.rstrip(b"\0")}
    found: dict[bytes, bytes] = {}
    while data:
        digits, _, _ = data.partition(b" ")
        length = _number(digits, 10, offset)
        key, equals, value = data[len(digits) + 1 : length].partition(b"=")
        if not equals or not value.endswith(b"\n") or length > len(data):
            raise DamagedTarError(f"the extended header at byte {offset} is malformed")
        found[key] = value[:-1]
        data = data[length:]
    return found


def _name_of(block: bytes, extended: dict[bytes, bytes]) -> str:
    raw = extended.get(b"path")
    if raw is None:
        raw = block[:_NAME_BYTES].split(b"\0", 1)[0]
        prefix = block[345 : 345 + _PREFIX_BYTES].split(b"\0", 1)[0] if block[257:263] == b"ustar\0" else b""
        raw = prefix + b"/" + raw if prefix else raw
    return raw.decode("utf-8", "surrogateescape")
