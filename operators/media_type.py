"""What media is, by its content alone: names and Content-Type headers of the web lie."""

from __future__ import annotations

import re

_MAGIC = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"II+\0", "image/tiff"),
    (b"MM\0+", "image/tiff"),
    (b"\xff\x0a", "image/jxl"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "image/jxl"),
    (b"\0\0\x01\0", "image/x-icon"),
    (b"FLV\x01", "video/x-flv"),
    (b"OggS", "application/ogg"),
    (b"%PDF-", "application/pdf"),
    (b"PK\x03\x04", "application/zip"),
    (b"\x1f\x8b", "application/gzip"),
)
_RIFF_FORMS = {b"WEBP": "image/webp", b"AVI ": "video/x-msvideo", b"WAVE": "audio/wav"}
_ISO_BRANDS = {
    b"avif": "image/avif",
    b"avis": "image/avif",
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), "image/heic"),
    b"mif1": "image/heif",
    b"msf1": "image/heif",
    b"qt  ": "video/quicktime",
    b"M4A ": "audio/mp4",
}
_MARKUP = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--[^>]*>\s*)*<(?:!doctype\s+)?(html|head|body|script|svg)\b", re.I
)


def media_type(body: bytes) -> str | None:
    """The media type that the first bytes of a file show, or None; names and headers are never asked."""
    for magic, mime in _MAGIC:
        if body.startswith(magic):
            return mime
    if body[:4] == b"RIFF":
        return _RIFF_FORMS.get(body[8:12])
    if body[4:8] == b"ftyp":
        return _ISO_BRANDS.get(body[8:12], "video/mp4")
    if body[:4] == b"\x1aE\xdf\xa3":
        return "video/webm" if b"webm" in body[:64] else "video/x-matroska"
    if body[:2] == b"BM" and body[6:10] == bytes(4):
        return "image/bmp"
    markup = _MARKUP.match(body[:1024])
    return None if markup is None else "image/svg+xml" if markup[1].lower() == b"svg" else "text/html"


UNKNOWN_EXTENSION = "bin"
_EXTENSIONS = {
    "image/jpeg": "jpg",
    "image/png": "png",
    "image/gif": "gif",
    "image/webp": "webp",
    "image/bmp": "bmp",
    "image/tiff": "tiff",
    "image/avif": "avif",
    "image/heic": "heic",
    "image/heif": "heic",
    "image/jxl": "jxl",
    "image/svg+xml": "svg",
    "video/mp4": "mp4",
    "video/webm": "webm",
    "video/x-matroska": "mkv",
    "video/quicktime": "mov",
    "video/x-msvideo": "avi",
    "video/x-flv": "flv",
    "audio/mp4": "m4a",
    "audio/wav": "wav",
    "application/ogg": "ogg",
}


def extension_of(data: bytes) -> str:
    """The extension, without a dot, of encoded media; `bin` for what is not known.

    Loaders choose a decoder by the extension, so a PNG called `.jpg` would break them.
    """
    return _EXTENSIONS.get(media_type(data) or "", UNKNOWN_EXTENSION)
