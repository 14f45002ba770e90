"""URLs as people may see them: without user names, passwords, and signatures.

A ledger, a log or a manifest is copied further than a URL list is. What grants access goes out before a URL is
written there; what tells one image from another (path, size, page parameters) stays, so that a person still
recognises the row. It works on the text alone and never parses: broken URLs are the ones that get reported.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

REDACTED = "REDACTED"

_AUTHORITY = re.compile(r"(\s*(?:(?:[a-z][a-z0-9+.-]*:)?[/\\]+)?)([^/\\?#]*@)?", re.IGNORECASE)
_BROKEN_USERINFO = re.compile(r"[^/\\?#@\[\]:]*:(?!\d*(?:[/\\?#]|$))[^@]*@")
"""`user:pass/word@`: a password that was not escaped; a host's own colon is followed by a port."""

_PARAMETER = re.compile(r"(?:[?&;#]|%(?:25){0,3}(?:3f|26|3b|23))([^=?&;#]{0,80}?)(?:=|%(?:25){0,3}3d)", re.IGNORECASE)
"""A parameter up to its value, percent-encoded ones of nested URLs included; bounded, so that the search is linear."""

_VALUE = re.compile(r"[^&#]*")
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029\ud800-\udfff]")

_SUSPICIOUS = r"[^\x21-\x7e]|[@=%]"
"""What a URL needs for anything to be taken out of it or encoded: most have none of these."""

_SECRET_PREFIXES = ("x-amz-", "x-goog-", "x-oss-", "x-cos-", "x-ms-")
_SECRET_PARTS = re.compile(r"token|secret|signature|passw|credential|api-?key|access-?key|private-?key|jwt|hmac")
_SECRET_WORDS = frozenset({"key", "auth", "authorization", "sig", "sign", "pass", "pwd", "session", "sessionid"})
_SECRET_NAMES = frozenset(
    {
        *("awsaccesskeyid", "googleaccessid", "ossaccesskeyid", "expires", "policy", "key-pair-id"),
        *("se", "sp", "sv", "sr", "st", "si", "sip", "spr", "skoid", "sktid", "skt", "ske", "sks", "skv"),
        *("sid", "jsessionid", "phpsessid", "hdnea", "hdnts", "hdntl", "oh", "oe"),
    }
)
"""CloudFront and object stores, Azure shared access signatures, session ids, Akamai, Facebook's CDN."""


def redact_url(url: str) -> str:
    """A URL without what grants access to it.

    User name and password go; values of signature- and token-like parameters become REDACTED, in the query, the
    fragment, and URLs inside either. Other parameters stay. Any text is accepted; the result is one line
    of valid Unicode, with control characters and spaces percent-encoded.
    """
    return _UNPRINTABLE.sub(_percent_encoded, _without_secret_values(_without_userinfo(url)))


def redact_urls(urls: pa.Array | pa.ChunkedArray) -> pa.Array:
    """`redact_url` of each of the (N,) strings; null stays null."""
    texts = pc.cast(urls, pa.large_string())
    texts = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    suspicious = pc.fill_null(pc.match_substring_regex(texts, _SUSPICIOUS), False)
    redacted = pa.array(map(redact_url, texts.filter(suspicious).to_pylist()), pa.large_string())
    return pc.cast(pc.replace_with_mask(texts, suspicious, redacted), pa.string())


def is_secret_parameter(name: str) -> bool:
    """Whether a query parameter's value may grant access, by its name alone."""
    plain = unquote(unquote(name)).strip().lower().replace("_", "-")
    return (
        plain in _SECRET_NAMES
        or plain.startswith(_SECRET_PREFIXES)
        or _SECRET_PARTS.search(plain) is not None
        or not _SECRET_WORDS.isdisjoint(re.split(r"[-.\[\]]", plain))
    )


def _without_userinfo(url: str) -> str:
    authority = _AUTHORITY.match(url)
    if authority is None:
        return url
    rest = url[authority.end() :]
    broken = None if authority[2] else _BROKEN_USERINFO.match(rest)
    return authority[1] + (rest[broken.end() :] if broken else rest)


def _without_secret_values(url: str) -> str:
    pieces: list[str] = []
    copied = at = 0
    while parameter := _PARAMETER.search(url, at):
        at = parameter.end()
        if is_secret_parameter(parameter[1]):
            value = _VALUE.match(url, at)
            pieces += [url[copied:at], REDACTED]
            copied = at = value.end() if value else at
    return "".join(pieces) + url[copied:]


def _percent_encoded(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogatepass"))
