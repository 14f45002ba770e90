"""Hashes that a list brings along, and sources that are not on the web."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError
from s3fs import S3FileSystem

from corpusmith.operators.fetch.config import DownloadConfig
from corpusmith.operators.fetch.download import Download

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2]))
from downloads import Opened, error_of, outcome, outcomes, rows_of, values_of
from hostile_server import JPEG, HostileServer
from s3_server import s3_bucket


@pytest.mark.parametrize("kind", ["md5", "sha256", "sha512"])
def test_hashes_are_verified_row_by_row(kind: str) -> None:
    true = hashlib.new(kind, JPEG).hexdigest()
    expected = [true, true.upper(), f" {true} ", "0" * len(true), true[:-1], None, ""]
    with HostileServer() as server:
        batch = pa.table(
            {"uid": [f"{i:032x}" for i in range(7)], "url": [server.url("good")] * 7, "their_hash": expected}
        )
        with Opened(hash_column="their_hash", hash_type=kind) as operator:
            assert operator.requires == ("url", "their_hash")
            told = dict(pair for part in operator.process(batch) for pair in rows_of(operator, part))
        assert server.requests["/good"] == 1
    assert [isinstance(told[i], dict) for i in range(7)] == [True] * 3 + [False] * 4
    errors = [told[i][0] for i in range(3, 7)]  # type: ignore[index]
    assert errors == ["hash mismatch", "hash mismatch", "missing their_hash", "missing their_hash"]
    assert told[3] == ("hash mismatch", f"{kind} is {true}")


def test_only_known_hashes_and_schemes() -> None:
    parameters: list[dict[str, Any]] = [{"hash_type": "crc32"}, {"allow_schemes": ("ftp",)}]
    for wrong in parameters:
        with pytest.raises(ValidationError):
            DownloadConfig(**wrong)


def test_files_only_when_allowed(tmp_path: Path) -> None:
    path = tmp_path / "a picture.jpg"
    path.write_bytes(JPEG)
    url = f"file://{path}"
    assert error_of(url) == "scheme refused"
    values = values_of(url, allow_schemes=("file",))
    assert values["media"] == JPEG
    assert values["sha256"] == hashlib.sha256(JPEG).hexdigest()
    assert values["http_status"] is None


def test_files_that_are_none(tmp_path: Path) -> None:
    big, empty, secret, pipe = (tmp_path / name for name in ("big", "empty", "secret", "pipe"))
    big.write_bytes(bytes(1001))
    empty.touch()
    secret.write_bytes(b"x")
    secret.chmod(0)
    os.mkfifo(pipe)
    errors = {
        big: "too large",
        empty: "empty body",
        tmp_path / "none": "missing file",
        tmp_path: "missing file",
        pipe: "missing file",
        Path("/dev/zero"): "missing file",
    }
    if os.geteuid():
        errors[secret] = "access denied"
    started_s = time.perf_counter()
    with Opened(allow_schemes=("file",), max_bytes=1000, retries=0) as operator:
        told = outcomes(operator, [f"file://{path}" for path in errors])
    assert [t[0] if isinstance(t, tuple) else t for t in told] == list(errors.values())
    assert time.perf_counter() - started_s < 2


def test_a_redirect_to_a_file_is_refused_even_then(tmp_path: Path) -> None:
    with HostileServer() as server:
        told = outcome(server.url("redirect/file%3A%2F%2F%2Fetc%2Fpasswd"), allow_schemes=("file",))
    assert told == ("scheme refused", "file: only http and https are fetched")


def test_what_is_missing_is_told_before(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Download().missing() is None
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    told = Download(DownloadConfig(allow_schemes=("s3",))).missing()
    assert told is not None
    assert "s3fs" in told


def test_objects_of_s3() -> None:
    with s3_bucket() as bucket:
        store = S3FileSystem()
        for name, body in {"a b.jpg": JPEG, "big": bytes(5000), "empty": b""}.items():
            store.pipe(f"{bucket}/{name}", body)
        names = ["a b.jpg", "big", "empty", "none", "a b.jpg?x=1"]
        with Opened(allow_schemes=("s3",), max_bytes=4000, retries=0) as operator:
            told = outcomes(operator, [f"{bucket}/{name}" for name in names] + ["s3://no-such-bucket/x"])
    good, *failed = told
    assert isinstance(good, dict)
    assert good["media"] == JPEG
    assert good["etag"] == f'"{hashlib.md5(JPEG).hexdigest()}"'
    assert [t[0] if isinstance(t, tuple) else t for t in failed] == [
        *("too large", "empty body", "missing file", "missing file", "missing file")
    ]
