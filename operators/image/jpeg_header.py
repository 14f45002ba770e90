"""What precedes the pixels of a JPEG: size, kind, EXIF and colour profile, read without touching a pixel.

A picture that claims to be too large is refused by this before anything is allocated for it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from corpusmith.schemas.fates import RowFailed

_MAX_SEGMENTS = 1000
_MAX_SCANS = 200
_SOF_LOSSLESS_OR_HIERARCHICAL = frozenset((0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF))
_EOI, _SOS, _APP1, _APP2, _APP14, _COMMENT = 0xD9, 0xDA, 0xE1, 0xE2, 0xEE, 0xFE
_PROGRESSIVE = (0xC2, 0xCA)
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_APPLICATION = range(0xE0, 0xF0)
_WITHOUT_LENGTH = frozenset((0x01, *range(0xD0, 0xD9)))
_EXIF = b"Exif\0\0"
_ICC = b"ICC_PROFILE\0"


@dataclass(frozen=True)
class JpegHeader:
    """What precedes the pixels of a JPEG.

    Args:
        width: pixels, as stored (before any orientation); height: likewise.
        components: 1 gray, 3 colour, 4 CMYK or YCCK.
        exif: the TIFF structure of the EXIF segment, or b"".
        icc_profile: the colour profile put together from its segments, or b"".
        is_adobe: Adobe's marker is there; CMYK is then stored inverted.
        metadata: where segments lie that say nothing about the pixels: (start, end) with their markers.
    """

    width: int
    height: int
    components: int
    exif: bytes
    icc_profile: bytes
    is_adobe: bool
    metadata: tuple[tuple[int, int], ...]


def jpeg_header(data: bytes) -> JpegHeader:
    """Walk the segments of a JPEG (ITU-T T.81, annex B) up to its pixels.

    Raises:
        RowFailed: "truncated image", "corrupt image" or "unsupported image format".
    """
    frame: tuple[int, int, int] | None = None
    is_progressive = False
    exif, is_adobe = b"", False
    icc: dict[int, bytes] = {}
    metadata: list[tuple[int, int]] = []
    position = 2
    for _ in range(_MAX_SEGMENTS):
        marker, start, end = _segment(data, position)
        if marker == _SOS:
            break
        if marker in _START_OF_FRAME and frame is None:
            frame, is_progressive = _frame(data, marker, start), marker in _PROGRESSIVE
        elif marker == _APP14:
            is_adobe = is_adobe or data.startswith(b"Adobe", start)
        elif marker in _APPLICATION or marker == _COMMENT:
            metadata.append((start - 4, end))
            if marker == _APP1 and not exif and data.startswith(_EXIF, start):
                exif = data[start + len(_EXIF) : end]
            elif marker == _APP2 and data.startswith(_ICC, start):
                icc[data[start + len(_ICC)]] = data[start + len(_ICC) + 2 : end]
        position = end
    else:
        raise RowFailed("corrupt image", f"more than {_MAX_SEGMENTS} JPEG segments before the pixels")
    if frame is None or not frame[0] or not frame[1]:
        raise RowFailed("corrupt image", "JPEG without a size")
    if is_progressive and data.count(b"\xff\xda", position) > _MAX_SCANS:
        raise RowFailed("corrupt image", f"more than {_MAX_SCANS} scans in a JPEG")
    profile = b"".join(icc[i] for i in sorted(icc)) if icc else b""
    return JpegHeader(*frame, exif, profile, is_adobe, tuple(metadata))


def without_metadata(data: bytes, header: JpegHeader) -> bytes:
    """The same picture without segments that say nothing about its pixels."""
    ends = [2, *(end for _, end in header.metadata)]
    starts = [*(start for start, _ in header.metadata), len(data)]
    return data[:2] + b"".join(data[end:start] for end, start in zip(ends, starts, strict=True))


def _frame(data: bytes, marker: int, start: int) -> tuple[int, int, int]:
    precision, height, width, components = struct.unpack_from(">BHHB", data, start)
    if precision != 8:
        raise RowFailed("unsupported image format", f"jpeg of {precision} bits a sample")
    if marker in _SOF_LOSSLESS_OR_HIERARCHICAL:
        raise RowFailed("unsupported image format", "lossless or hierarchical jpeg")
    return width, height, components


def _segment(data: bytes, position: int) -> tuple[int, int, int]:
    """The marker at or after `position`, where its payload starts and where it ends."""
    position = data.find(b"\xff", position)
    while 0 <= position < len(data) - 1 and data[position + 1] in (0xFF, 0x00):
        position = data.find(b"\xff", position + 1 if data[position + 1] == 0xFF else position + 2)
    if not 0 <= position < len(data) - 1:
        raise RowFailed("truncated image", "JPEG ends within its headers")
    marker = data[position + 1]
    if marker == _EOI:
        raise RowFailed("corrupt image", "JPEG without pixels")
    if marker in _WITHOUT_LENGTH:
        return marker, position + 2, position + 2
    if position + 4 > len(data):
        raise RowFailed("truncated image", "JPEG ends within its headers")
    end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    if end > len(data):
        raise RowFailed("truncated image", "JPEG ends within its headers")
    least = 8 if marker in _START_OF_FRAME else 2
    if marker == _APP2 and data.startswith(_ICC, position + 4):
        least = 2 + len(_ICC) + 2
    if end - position - 2 < least:
        raise RowFailed("corrupt image", f"JPEG segment {marker:#x} is too short")
    return marker, position + 4, end
