"""The extension that media gets in a shard: by what the bytes are, never by what a name or a server said.

Loaders choose a decoder by the extension, so a PNG called `.jpg` would break them.
"""

from __future__ import annotations

UNKNOWN_EXTENSION = "bin"

_HEADS: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "jpg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
    (b"\xff\x0a", "jxl"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "jxl"),
    (b"FLV\x01", "flv"),
)
_RIFF_FORMS = {b"WEBP": "webp", b"AVI ": "avi"}
_BRANDS = {b"avif": "avif", b"avis": "avif", b"heic": "heic", b"heix": "heic", b"mif1": "heic", b"qt  ": "mov"}
"""Major brands of ISO base media files (ISO/IEC 14496-12, `ftyp`); any other brand is an mp4."""
_EBML = b"\x1a\x45\xdf\xa3"
_EBML_HEAD_BYTES = 64
_BMP_INFO_BYTES = frozenset((12, 16, 40, 52, 56, 64, 108, 124))


def extension_of(data: bytes) -> str:
    """The extension, without a dot, of encoded media; `bin` for what is not known."""
    for head, extension in _HEADS:
        if data.startswith(head):
            return extension
    if data.startswith(b"RIFF"):
        return _RIFF_FORMS.get(data[8:12], UNKNOWN_EXTENSION)
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12], "mp4")
    if data.startswith(_EBML):
        return "webm" if b"webm" in data[:_EBML_HEAD_BYTES] else "mkv"
    if data.startswith(b"BM") and int.from_bytes(data[14:18], "little") in _BMP_INFO_BYTES:
        return "bmp"
    return UNKNOWN_EXTENSION
