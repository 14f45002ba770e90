"""Failures that may pass, and the stable classes that libcurl's own errors are told as.

A message names what happened in fixed words, or in the words of the TLS library, which never hold the URL: its query
may carry a secret. Codes that libcurl uses for several things are told apart by how far the answer had come.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import pycurl

from corpusmith.operators.fetch.transient import TransientFailure
from corpusmith.schemas.fates import RowFailed


@dataclass(frozen=True)
class Ending:
    """How a transfer ended that libcurl calls failed.

    Args:
        code: its error code.
        message: its own words.
        errno: the operating system's error, 0 for none.
        refusals: what was said of the addresses that were refused.
        has_head: whether the headers had come in full.
        sockets: connections that were tried.
        host: whom it was meant for.
    """

    code: int
    message: str
    errno: int
    refusals: tuple[str, ...]
    has_head: bool
    sockets: int
    host: str


_E_WEIRD_SERVER_REPLY = 8
_E_HTTP2_STREAM = 92
_E_TOO_LARGE = 100
"""Codes of libcurl for which pycurl has no name, or that of another protocol."""

_NO_HTTP = {
    pycurl.E_UNSUPPORTED_PROTOCOL: "an answer without a status line",
    _E_WEIRD_SERVER_REPLY: "headers that are none",
    _E_TOO_LARGE: "a header larger than any that is in use",
    pycurl.E_BAD_CONTENT_ENCODING: "an encoding that is not what it says",
}
_ANSWER_STOPPED = frozenset(
    {
        *(pycurl.E_PARTIAL_FILE, pycurl.E_RECV_ERROR, pycurl.E_GOT_NOTHING, pycurl.E_SEND_ERROR),
        *(pycurl.E_HTTP2, _E_HTTP2_STREAM),
    }
)
_BAD_CERTIFICATE = frozenset({pycurl.E_PEER_FAILED_VERIFICATION, pycurl.E_SSL_CACERT})


def failure_of(ending: Ending) -> RowFailed:
    """The row's failure for what libcurl reports; transient where another attempt may end otherwise."""
    code = ending.code
    if ending.refusals and not ending.sockets:
        return RowFailed("address refused", f"{ending.host}: {', '.join(ending.refusals)}"[:300])
    if code == pycurl.E_COULDNT_RESOLVE_HOST:
        return TransientFailure("DNS failure", f"{ending.host}: no address")
    if code == pycurl.E_URL_MALFORMAT:
        return RowFailed("invalid URL", "libcurl cannot read it")
    if code in _BAD_CERTIFICATE:
        return RowFailed("connection failed", "the server's certificate is not valid")
    if code in _NO_HTTP:
        return RowFailed("bad response", f"not HTTP: {_NO_HTTP[code]}")
    if code in _ANSWER_STOPPED:
        return _stopped(ending)
    if code in (pycurl.E_COULDNT_CONNECT, pycurl.E_SSL_CONNECT_ERROR, pycurl.E_OPERATION_TIMEDOUT):
        return TransientFailure("connection failed", _reason(ending))
    return RowFailed("bad response", f"libcurl error {code}")


def _stopped(ending: Ending) -> RowFailed:
    """The connection ended, or what came over it could not be read on."""
    if "chunk" in ending.message.lower():
        return RowFailed("bad response", "not HTTP: chunks that are none")
    if ending.has_head:
        return TransientFailure("truncated body", "the connection ended before the body did")
    if ending.code == pycurl.E_GOT_NOTHING:
        return TransientFailure("connection failed", "the server closed the connection without an answer")
    return TransientFailure("connection failed", _reason(ending))


def _reason(ending: Ending) -> str:
    if ending.code == pycurl.E_SSL_CONNECT_ERROR:
        return f"TLS: {ending.message}"[:200]
    return os.strerror(ending.errno) if ending.errno else "the connection ended before the answer began"
