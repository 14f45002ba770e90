"""Normal forms: spellings of one URL, or of one text, that compare as equal. For comparison alone: no value changes.

`text`: Unicode's compatibility form and full case folding (NFKC_Casefold, Unicode Standard 3.13), without invisible
characters; what parts words (white space, control characters, punctuation but `# % & @`, and the signs `< = > ^ | ~`
and the backtick) is one space, and none at the ends. Where nothing is left of a text, its punctuation is compared.
Marks, digits, currency signs, `+` and emoji count, so that "IMG 1", "IMG 2" and "C++", "C" stay apart; FineWeb's form
(datatrove's `simplify_text`) is coarser: it drops accents and makes all numbers 0.

`url`: RFC 3986, section 6.2, for http and https, which compare as equal, as does `//host/…`. Scheme and host in lower
case, the host in ASCII (UTS 46) and without its last dot; no default or empty port, no fragment, no empty query; a
backslash is a slash, an empty path `/`, dot segments are resolved; percent-encodings decoded where the character is
unreserved, in upper case elsewhere, and made where a character may not stand. White space at the ends, line breaks and
tabs mean nothing (WHATWG URL Standard, 4.4). `www.`, user names, doubled slashes, a slash at the end and the order of
parameters count. Other addresses, and what is none, are compared as they are, without white space at the ends.

`url_without_tracking`: without the parameters by which mails and ads are tracked, too, the others sorted by name.

Most values are plain and stay in Arrow; other texts are folded a batch in one go, other URLs one by one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpusmith.operators.text.url_parts import ascii_host

Form = Literal["text", "url", "url_without_tracking"]

_SEVERAL_MARKS = r"\p{M}{4}"
"""Few texts have them; the next takes milliseconds to compile."""
_LONG_MARKS = r"(\p{M}{30})\p{M}+"
"""Longer runs take quadratic time to normalise (Unicode Standard Annex #15, stream-safe text)."""
_INVISIBLE = (
    r"[\x{ad}\x{34f}\x{61c}\x{180b}-\x{180f}\x{200b}-\x{200f}\x{202a}-\x{202e}\x{2060}-\x{206f}\x{fe00}-\x{fe0f}\x{feff}"
    r"\x{fff9}-\x{fffb}\x{e0000}-\x{e0fff}]+"
)
"""Format characters and variation selectors."""
_SPACES = r"[\pZ\p{Cc}]"
_BREAKS = rf"[^\PP#%&@]|{_SPACES}"
_MARKS = "!\"'()*,-./:;?[\\]_{}<=>^`|~"
"""What parts words in ASCII besides white space and control characters."""

_IN_PATH = r"[A-Za-z0-9_~!$&'()*+,;=@:-]|%(?:[018-9A-F][0-9A-F]|2[0-9A-CF]|3[A-F]|40|5[B-E]|60|7[BCDF])"
_PLAIN_URL = (
    rf"^https?://[a-z0-9_.-]*[a-z0-9_-]/(?:/|(?:{_IN_PATH})(?:{_IN_PATH}|\.)*/)*(?:(?:{_IN_PATH})(?:{_IN_PATH}|\.)*)?"
    rf"(?:\?(?:{_IN_PATH}|[./?])+)?$"
)
"""A URL that is its own form but for the scheme."""

_URL = re.compile(r"(?:(https?):)?[/\\]{2}([^/\\?#]*)([^?#]*)(?:\?([^#]*))?", re.IGNORECASE)
_AUTHORITY = re.compile(r"(.*@)?(\[.*\]|[^:]*)(?::0*([0-9]*))?", re.DOTALL)
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_PLAIN_HOST = re.compile(r"[a-z0-9._-]*")
_LINE_BREAKS = str.maketrans("", "", "\t\n\r")
_ENCODED = re.compile(r"%([0-9A-Fa-f]{2})|[^A-Za-z0-9._~!$&'()*+,;=:@/?\[\]-]")
_UNRESERVED_CHARS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_TRACKING = re.compile(
    r"utm_.*|mtm_.*|pk_.*|piwik_.*|hsa_.*|gclid|gclsrc|dclid|gbraid|wbraid|srsltid|_ga|_gl|fbclid|igshid|igsh|msclkid"
    r"|twclid|ttclid|yclid|ysclid|li_fat_id|mc_cid|mc_eid|_hsenc|_hsmi|mkt_tok|oly_anon_id|oly_enc_id|vero_id|__s|epik"
    r"|s_kwcid|rb_clickid|wickedid",
    re.IGNORECASE | re.DOTALL,
)
"""Names of campaigns' and clicks' parameters, of which none says what an address leads to."""
_TRACKED_OR_SEVERAL = rf"(?is)\?(?:(?:{_TRACKING.pattern})(?:=|$)|.*&|$)"


def normal_form(values: pa.Array, form: Form) -> pa.Array:
    """The form of each value (large_string); null for null.

    Args:
        values: texts or URLs, any text type.
        form: see the module.
    """
    texts = values.cast(pa.large_string())
    return _text_forms(texts) if form == "text" else _url_forms(texts, form == "url_without_tracking")


def _text_forms(texts: pa.Array) -> pa.Array:
    is_ascii = pc.fill_null(pc.string_is_ascii(texts), True)
    is_wide = pc.invert(is_ascii)
    folded = pc.replace_with_mask(texts, is_wide, _folded(texts.filter(is_wide)))
    forms = _parted(folded, is_wide, _BREAKS, _MARKS)
    is_gone = pc.fill_null(pc.and_not(pc.equal(forms, ""), pc.equal(folded, "")), False)
    rest = _parted(folded.filter(is_gone), is_wide.filter(is_gone), _SPACES, "")
    return pc.replace_with_mask(forms, is_gone, rest)


def _parted(texts: pa.Array, is_wide: pa.Array, breaks: str, marks: str) -> pa.Array:
    """Texts in which each run of breaks is one space, with none at the ends, their ASCII letters in lower case.

    Args:
        texts: large strings.
        is_wide: whether a text goes beyond ASCII.
        breaks: regular expression of what parts words in such texts.
        marks: ASCII characters that part words besides white space and control characters.
    """
    wide = pc.replace_substring_regex(texts.filter(is_wide), breaks, " ")
    return _squeezed(pc.replace_with_mask(texts, is_wide, wide), _table(marks))


@cache
def _table(marks: str) -> np.ndarray:
    """For each byte of UTF-8 what stands for it."""
    lower = bytes(range(256)).lower()
    return np.array([32 if i <= 32 or i == 127 or chr(i) in marks else lower[i] for i in range(256)], np.uint8)


def _squeezed(texts: pa.Array, table: np.ndarray) -> pa.Array:
    from corpusmith.operators.dedup.normal_form_kernels import squeeze

    filled = pc.fill_null(texts, "")
    _, ends, data = filled.buffers()
    bounds = np.frombuffer(ends, np.int64)[filled.offset : filled.offset + len(filled) + 1]
    read = np.frombuffer(data, np.uint8) if data else np.empty(0, np.uint8)
    written, written_bounds = np.empty(bounds[-1] - bounds[0], np.uint8), np.empty(len(bounds), np.int64)
    squeeze(read, bounds, table, written, written_bounds)
    buffers = (pa.py_buffer(written_bounds), pa.py_buffer(written))
    return pc.if_else(texts.is_valid(), pa.LargeStringArray.from_buffers(len(texts), *buffers), None)


def _folded(texts: pa.Array) -> pa.Array:
    """NFKC_Casefold of texts without null, all at once: no line break joins its neighbours or comes of others."""
    texts = pc.replace_substring_regex(texts, _INVISIBLE, "")
    if pc.any(pc.match_substring_regex(texts, _SEVERAL_MARKS)).as_py():
        texts = pc.replace_substring_regex(texts, _LONG_MARKS, r"\1")
    texts = pc.replace_substring(texts, "\n", " ")
    joined = "\n".join(texts.to_pylist())
    for _ in range(2):
        joined = unicodedata.normalize("NFKC", joined).casefold()
    joined = unicodedata.normalize("NFKC", joined)
    return pa.array(joined.split("\n"), pa.large_string())


def _url_forms(urls: pa.Array, without_tracking: bool) -> pa.Array:
    is_plain = pc.match_substring_regex(urls, _PLAIN_URL)
    if without_tracking:
        is_plain = pc.and_not(is_plain, pc.match_substring_regex(urls, _TRACKED_OR_SEVERAL))
    is_other = pc.invert(pc.fill_null(is_plain, True))
    forms = pc.replace_substring_regex(urls, "^https?:", "")
    form = _form_without_tracking if without_tracking else _url_form
    others = pa.array([form(url) for url in urls.filter(is_other).to_pylist()], pa.large_string())
    return pc.replace_with_mask(forms, is_other, others)


def _form_without_tracking(url: str) -> str:
    return _url_form(url, _without_tracking)


def _url_form(url: str, of_query: Callable[[str], str] = str) -> str:
    text = url.strip()
    parts = _URL.match(text.translate(_LINE_BREAKS))
    authority = _AUTHORITY.fullmatch(parts[2]) if parts else None
    host = _host(authority[2]) if authority else ""
    if not parts or not authority or not host:
        return text
    port = authority[3] or ""
    if port == _DEFAULT_PORTS.get((parts[1] or "").lower()):
        port = ""
    path = _without_dots(_encoded(parts[3].replace("\\", "/"))) or "/"
    query = of_query(_encoded(parts[4] or ""))
    return f"//{authority[1] or ''}{host}{port and ':'}{port}{path}{query and '?'}{query}"


@lru_cache(1 << 14)
def _host(written: str) -> str:
    host = written.lower()
    if not _PLAIN_HOST.fullmatch(host):
        host = ascii_host(written) or host
    host = host.removesuffix(".")
    return f"[{host}]" if ":" in host and host[0] != "[" else host


def _encoded(text: str) -> str:
    """Each character encoded that has to be, and no other."""
    return _ENCODED.sub(_encoding, text)


def _encoding(match: re.Match[str]) -> str:
    if match[1] is None:
        return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogatepass"))
    char = chr(int(match[1], 16))
    return char if char in _UNRESERVED_CHARS else match[0].upper()


def _without_dots(path: str) -> str:
    """RFC 3986, section 5.2.4."""
    if "/." not in path:
        return path
    segments: list[str] = []
    for segment in path.split("/"):
        if segment == ".." and len(segments) > 1:
            segments.pop()
        elif segment not in (".", ".."):
            segments.append(segment)
    return "/".join(segments) + ("/" if path.endswith(("/.", "/..")) else "")


def _without_tracking(query: str) -> str:
    parameters = (parameter.partition("=") for parameter in query.split("&") if parameter)
    kept = [parameter for parameter in parameters if not _TRACKING.fullmatch(parameter[0])]
    return "&".join(map("".join, sorted(kept, key=lambda parameter: parameter[0])))
