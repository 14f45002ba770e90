"""What encoded bytes are, by their content alone: names and Content-Type headers of the web lie.

The JPEG walk reads the few headers that decisions need (size, EXIF, colour profile) without touching a pixel, so that
a picture that claims to be too large is refused before anything is allocated for it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from corpusmith.schemas.fates import RowFailed

_MAX_JPEG_SEGMENTS = 1000
_SOI, _EOI, _SOS, _APP1, _APP2 = 0xD8, 0xD9, 0xDA, 0xE1, 0xE2
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = frozenset((0x01, *range(0xD0, 0xD9)))
_EXIF = b"Exif\0\0"
_ICC = b"ICC_PROFILE\0"

_BRANDS = {b"avif": "avif", b"avis": "avif", b"heic": "heif", b"heix": "heif", b"mif1": "heif", b"msf1": "heif"}
"""Major brands of ISO base media files (ISO/IEC 23008-12, AVIF 1.1) that are pictures."""


def image_format(data: bytes) -> str | None:
    """The picture format that the first bytes announce: "jpeg", "png", "gif", "webp", "bmp", "tiff", "avif", "heif"."""
    if data[:3] == b"\xff\xd8\xff":
        return "jpeg"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "png"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "tiff"
    if data[4:8] == b"ftyp":
        return _brand(data)
    return "bmp" if data[:2] == b"BM" and len(data) >= 26 else None


def _brand(data: bytes) -> str | None:
    """The format of an ISO base media file: `mif1` is common ground, a compatible brand says more."""
    size = min(int.from_bytes(data[:4], "big"), len(data), 256)
    brands = [data[8:12], *(data[i : i + 4] for i in range(16, size - 3, 4))]
    known = [_BRANDS[brand] for brand in brands if brand in _BRANDS]
    return None if not known or brands[0] not in _BRANDS else "avif" if "avif" in known else known[0]


@dataclass(frozen=True)
class JpegHeader:
    """What precedes the pixels of a JPEG.

    Args:
        width: pixels, as stored (before any orientation); height: likewise.
        components: 1 gray, 3 colour, 4 CMYK.
        exif: the TIFF structure of the EXIF segment, or b"".
        icc_profile: the colour profile put together from its segments, or b"".
    """

    width: int
    height: int
    components: int
    exif: bytes
    icc_profile: bytes


def jpeg_header(data: bytes) -> JpegHeader:
    """Walk the segments of a JPEG (ITU-T T.81, annex B) up to its pixels.

    Raises:
        RowFailed: "truncated image" or "corrupt image".
    """
    frame: tuple[int, int, int] | None = None
    exif, icc = b"", {}
    position = 2
    for _ in range(_MAX_JPEG_SEGMENTS):
        marker, start, end = _segment(data, position)
        if marker == _SOS:
            break
        if marker in _START_OF_FRAME and frame is None:
            _, height, width, components = struct.unpack_from(">BHHB", data, start)
            frame = width, height, components
        elif marker == _APP1 and not exif and data.startswith(_EXIF, start):
            exif = data[start + len(_EXIF) : end]
        elif marker == _APP2 and data.startswith(_ICC, start):
            icc[data[start + len(_ICC)]] = data[start + len(_ICC) + 2 : end]
        position = end
    else:
        raise RowFailed("corrupt image", f"more than {_MAX_JPEG_SEGMENTS} JPEG segments before the pixels")
    if frame is None or not frame[0] or not frame[1]:
        raise RowFailed("corrupt image", "JPEG without a size")
    return JpegHeader(*frame, exif=exif, icc_profile=b"".join(icc[i] for i in sorted(icc)))


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
