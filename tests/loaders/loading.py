"""Two small corpora of real pictures, made by real runs from a server on loopback, and what each loader must find.

`plain` is as recipes make a corpus: every sample a JPEG of one size with a caption. `mixed` has what a loader may trip
over: bytes passed through as JPEG, PNG, WebP and GIF, samples without a caption, a shard of a single sample.
"""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import subprocess
import tarfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import skimage.data
from corpora import run_recipe
from PIL import Image

from corpusmith.pipelines.storage import Storage
from corpusmith.pipelines.verify import verify

PHOTOS = ("astronaut", "coffee", "rocket", "chelsea")
SIZE_PX = 64
READERS = Path(__file__).parent / "readers"

CAPTIONS: tuple[str, ...] = (
    "a plain caption",
    "two lines\nof text\r\n\tand a tab",
    "quotes \" ' ` and a comma, a semicolon; a pipe | and a back\\slash",
    "naïve café 写真 🐈‍⬛ Zürich",
    "right to left: \u202eחתול\u202c and مرحبا",
    "</script><img src=x onerror=alert(1)>",
    "{{ 7*7 }} {% raw %} ${HOME} $(id) %s %n",
    '=HYPERLINK("http://a.example") @SUM(1) +1 -1',
    " led and trailed by spaces ",
    "long " * 2000,
    "../../etc/passwd",
    "\ufeffa byte order mark, a zero\u200bwidth space, a combining e\u0301",
    "null",
)


@dataclass(frozen=True)
class Expected:
    """What a loader must give for one sample."""

    key: str
    media: bytes
    extension: str
    size: tuple[int, int]
    caption: str | None
    row: dict[str, Any]


@dataclass(frozen=True)
class Corpus:
    """A finished corpus and its samples, in the order of the shards."""

    folder: Path
    samples: list[Expected]

    @property
    def tars(self) -> list[str]:
        """The shards' tars in order."""
        return [str(path) for path in sorted((self.folder / "shards").glob("*.tar"))]


def make_plain(folder: Path) -> Corpus:
    """13 samples in shards of 4, 4 and 5; EXIF in one of the last."""
    files = {f"{i}.{'jpg' if i % 2 else 'png'}": picture(i, "JPEG" if i % 2 else "PNG") for i in range(len(CAPTIONS))}
    return made(folder, files, CAPTIONS, [f"image: {{size: {SIZE_PX}, resize: center_crop}}"], samples_per_shard=5)


def make_mixed(folder: Path) -> Corpus:
    """9 samples as they came, in a shard of 1 and four of 2; each third without a caption."""
    forms = ("JPEG", "PNG", "WEBP", "GIF")
    files = {f"{i}": picture(i, forms[i % 4]) for i in range(9)}
    captions = [None if i % 3 == 0 else CAPTIONS[i] for i in range(9)]
    return made(folder, files, captions, [], samples_per_shard=2)


def picture(number: int, form: str) -> bytes:
    """A real photo, cut so that no two are the same."""
    photo = Image.fromarray(getattr(skimage.data, PHOTOS[number % len(PHOTOS)])())
    cut = photo.crop((number * 5, number * 3, 200 + number * 7, 180 + number * 4))
    exif = Image.Exif()
    if number == 11:
        exif[0x010F] = "a camera"
    buffer = io.BytesIO()
    cut.save(buffer, form, exif=exif)
    return buffer.getvalue()


def made(
    folder: Path, files: dict[str, bytes], captions: Sequence[str | None], steps: Sequence[str], samples_per_shard: int
) -> Corpus:
    """Run a recipe over served files, and read the corpus with nothing but pyarrow and tarfile."""
    web = folder / "web"
    web.mkdir()
    for name, data in files.items():
        (web / name).write_bytes(data)
    with served(web) as base:
        urls = [f"{base}/{name}" for name in files]
        texts = pa.array(captions, pa.string())
        pq.write_table(pa.table({"url": urls, "caption": texts, "rating": range(len(urls))}), folder / "urls.parquet")
        lines = [
            *("corpus: loaded", f"input: {{path: '{folder / 'urls.parquet'}'}}"),
            *("steps:", "- download: {allow_hosts: [127.0.0.1]}", *(f"- {step}" for step in steps)),
            f"output: {{samples_per_shard: {samples_per_shard}}}",
        ]
        run_recipe("\n".join(lines), folder / "corpus")
    assert verify(Storage(str(folder / "corpus"))) == []
    corpus = Corpus(folder / "corpus", list(samples_of(folder / "corpus")))
    assert {s.row["url"]: s.caption for s in corpus.samples} == dict(zip(urls, captions, strict=True))
    if not steps:
        assert all(s.media == files[s.row["url"].rpartition("/")[2]] for s in corpus.samples)
    return corpus


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on loopback; yields its URL."""
    handler = partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        return


def samples_of(corpus: Path) -> Iterator[Expected]:
    """The samples by the Parquets, their media by the tars' members."""
    for parquet in sorted((corpus / "shards").glob("*.parquet")):
        members = {}
        with tarfile.open(parquet.with_suffix(".tar")) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                members[member.name] = file.read()
        for row in pq.read_table(parquet).to_pylist():
            (name,) = (n for n in members if n.startswith(f"{row['key']}.") and not n.endswith((".txt", ".json")))
            media = members[name]
            assert json.loads(members[f"{row['key']}.json"])["uid"] == row["uid"]
            size = Image.open(io.BytesIO(media)).size
            yield Expected(row["key"], media, name.rpartition(".")[2], size, row["caption"], row)


def read_by(python: Path | str, reader: str, arguments: dict[str, Any], *, timeout_s: float = 120) -> Any:
    """What a script of `readers/` prints as JSON under some Python; it may use no network."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | {
        "HF_HUB_OFFLINE": "1",
        "NO_ALBUMENTATIONS_UPDATE": "1",
    }
    command = [str(python), str(READERS / reader), json.dumps(arguments)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads(ended.stdout.strip().splitlines()[-1])


def sha256(data: bytes) -> str:
    """The hash by which bytes cross from one process to the other."""
    return hashlib.sha256(data).hexdigest()
