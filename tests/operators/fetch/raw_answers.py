"""Answers that no HTTP library would give, as bytes: what the hostile server sends for `/raw/NAME` before it hangs up.

Those that never end are pieces sent again and again, up to the server's own bounds.
"""

from __future__ import annotations

import gzip

PICTURE = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(1000)
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def whole(*headers: bytes, body: bytes = PICTURE) -> bytes:
    """An answer with its length and further headers."""
    return b"\r\n".join([OK.strip(), b"Content-Length: %d" % len(body), *headers, b"", body])


RAW: dict[str, bytes] = {
    "nothing": b"",
    "cut_status_line": b"HTTP/1.1 20",
    "cut_headers": OK + b"Content-Type: image/jp",
    "cut_after_headers": OK + b"Content-Length: 1000\r\n\r\n",
    "http09": PICTURE,
    "http_9_9": b"HTTP/9.9 200 OK\r\n\r\n" + PICTURE,
    "status_of_two_digits": b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    "status_of_letters": b"HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n",
    "status_999": b"HTTP/1.1 999 Go away\r\nContent-Length: 0\r\n\r\n",
    "negative_length": OK + b"Content-Length: -5\r\n\r\n" + PICTURE,
    "absurd_length": OK + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n" + PICTURE,
    "length_of_letters": OK + b"Content-Length: many\r\n\r\n" + PICTURE,
    "two_lengths": OK + b"Content-Length: 10\r\nContent-Length: 1011\r\n\r\n" + PICTURE,
    "length_too_long": OK + b"Content-Length: 5000\r\n\r\n" + PICTURE,
    "length_too_short": OK + b"Content-Length: 12\r\n\r\n" + PICTURE,
    "length_and_chunks": OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n",
    "no_length": OK + b"\r\n" + PICTURE,
    "chunk_size_of_letters": CHUNKED + b"xyz\r\nabc\r\n0\r\n\r\n",
    "chunk_size_negative": CHUNKED + b"-4\r\nabcd\r\n0\r\n\r\n",
    "chunk_size_absurd": CHUNKED + b"F" * 32 + b"\r\nabc",
    "chunk_without_end": CHUNKED + b"4\r\nabcdefgh\r\n0\r\n\r\n",
    "chunks_without_last": CHUNKED + b"4\r\nabcd\r\n",
    "nul_in_header": whole(b"X-Odd: a\x00b"),
    "bytes_in_header": whole(b"X-Odd: \xff\xfe\x80", b"ETag: \xff"),
    "line_without_colon": whole(b"this is no header"),
    "folded_header": whole(b"X-Long: a", b" b", b"\tc"),
    "gzip_in_gzip": whole(b"Content-Encoding: gzip, gzip", body=gzip.compress(gzip.compress(PICTURE))),
    "gzip_and_more": whole(b"Content-Encoding: gzip", body=gzip.compress(PICTURE) + b"more"),
    "transfer_gzip": OK + b"Transfer-Encoding: gzip\r\n\r\n" + gzip.compress(PICTURE),
    "transfer_unknown": OK + b"Transfer-Encoding: sorcery\r\n\r\n" + PICTURE,
    "switching_protocols": b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x05hello",
    "some_interim_answers": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 3 + whole(),
    "only_interim_answers": b"HTTP/1.1 100 Continue\r\n\r\n" * 3,
    "redirect_without_location": b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n",
    "redirect_with_empty_location": b"HTTP/1.1 302 Found\r\nLocation: \r\nContent-Length: 0\r\n\r\n",
    "redirect_with_bytes": b"HTTP/1.1 302 Found\r\nLocation: http://\xff\xfe/\r\nContent-Length: 0\r\n\r\n",
    "tls_alert": b"\x15\x03\x01\x00\x02\x02\x28",
    "smtp": b"220 mail.example.org ESMTP\r\n",
}

ENDLESS: dict[str, tuple[bytes, bytes]] = {
    "body": (OK + b"\r\n", bytes(65536)),
    "chunks": (CHUNKED, b"1000\r\n" + bytes(4096) + b"\r\n"),
    "chunk_extension": (CHUNKED + b"4;", b"a" * 65536),
    "headers": (OK, b"X-Header: value\r\n" * 1000),
    "header_line": (OK + b"X-Header: ", b"v" * 65536),
    "status_line": (b"HTTP/1.1 200 ", b"O" * 65536),
    "interim_answers": (b"", b"HTTP/1.1 102 Processing\r\n\r\n" * 1000),
    "trailers": (CHUNKED + b"4\r\nabcd\r\n0\r\n", b"X-Trailer: value\r\n" * 1000),
    "garbage": (b"", b"\x00\x01\x02garbage" * 4096),
}
"""What comes first, and what then comes without end."""
