"""What encoded bytes are, by their content alone: names and Content-Type headers of the web lie."""

from __future__ import annotations

_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "avif"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "heif"),
}
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
