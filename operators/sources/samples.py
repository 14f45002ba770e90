"""Samples of tars by WebDataset's rule: neighbours whose names agree up to the first dot of the last part.

`photos/000.jpg`, `photos/000.txt` and `photos/000.json` are one sample, `photos/000`. Its media is the first member
with a known extension, its text the member `.txt`, `.caption` or `.cap`, its further columns the keys of `.json`.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from corpusmith.operators.sources.tar_members import BrokenTarError, Member, TarWalk

IMAGE_EXTENSIONS = frozenset(
    {
        *("jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff"),
        *("avif", "heic", "heif", "jxl", "jp2", "ppm", "pgm", "svg"),
    }
)
VIDEO_EXTENSIONS = frozenset({"mp4", "m4v", "webm", "mkv", "mov", "avi", "mpg", "mpeg", "flv", "wmv", "ogv"})
MEDIA_EXTENSIONS = IMAGE_EXTENSIONS | VIDEO_EXTENSIONS
TEXT_EXTENSIONS = ("txt", "caption", "cap")
MAX_SIDECAR_BYTES = 1 << 24
"""A longer text or JSON beside media is neither."""

_CLIP = re.compile(r"(?:.*/)?\d{5,}_(\d{3,})")


@dataclass
class Sample:
    """What belongs together in a tar.

    Args:
        key: the common part of the names.
        media: the member, and the sha256 of its bytes; None without media.
        text, json: bytes of those members; None without.
        problem: why the sample cannot be used; empty for none.
        passed_over: extensions of members that say nothing to us.
    """

    key: str
    media: tuple[Member, str] | None = None
    text: bytes | None = None
    json: bytes | None = None
    problem: str = ""
    passed_over: Counter[str] = field(default_factory=Counter)
    _extensions: set[str] = field(default_factory=set)

    def add(self, extension: str, member: Member, walk: TarWalk, *, is_hashed: bool, is_any_media: bool) -> None:
        """Take a member in; reads its bytes.

        Raises:
            BrokenTarError: they are not all there.
        """
        if extension in self._extensions:
            self.problem = self.problem or f"the member .{_shown(extension)} stands twice"
            return
        self._extensions.add(extension)
        last = extension.rpartition(".")[2]
        is_sidecar = extension in TEXT_EXTENSIONS or extension == "json"
        is_media = not is_sidecar and (last in MEDIA_EXTENSIONS or is_any_media)
        if member.special and (is_sidecar or is_media):
            self.problem = self.problem or f"the member .{_shown(extension)} is a {member.special}"
        elif is_sidecar:
            self._add_sidecar(extension, member, walk)
        elif is_media and (self.media is None or _is_plainer(extension, self.media[0].name)):
            digest = hashlib.sha256()
            if is_hashed:
                walk.data(member, digest.update)
            self.media = (member, digest.hexdigest())
        else:
            self.passed_over[f".{_shown(extension)}"] += 1

    def _add_sidecar(self, extension: str, member: Member, walk: TarWalk) -> None:
        if member.size > MAX_SIDECAR_BYTES:
            self.problem = self.problem or f"the member .{extension} has {member.size} bytes"
            return
        parts: list[bytes] = []
        walk.data(member, parts.append)
        if extension == "json":
            self.json = b"".join(parts)
        elif self.text is None:
            self.text = b"".join(parts)


def _is_plainer(extension: str, other_name: str) -> bool:
    """Whether an extension says image or video by itself (`jpg`) and the other's does only at its end (`seg.png`)."""
    other = split_name(other_name)[1]
    return extension in MEDIA_EXTENSIONS and other not in MEDIA_EXTENSIONS


def _shown(extension: str) -> str:
    return ascii(extension[:20])[1:-1]


def split_name(name: str) -> tuple[str, str]:
    """Key and extension of a member, the extension in lower case; it is empty where the name is no sample's."""
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    if not stem or (not slash and base.startswith("__") and base.endswith("__")):
        return name, ""
    return folder + slash + stem, extension.lower()


def clip_of(key: str) -> str | None:
    """Which clip of its film a sample is by its key, as video2dataset writes keys: `0000000012_003` is clip 003."""
    clip = _CLIP.fullmatch(key)
    return clip[1] if clip else None


def read_samples(walk: TarWalk, *, is_hashed: bool, is_any_media: bool = False) -> Iterator[Sample]:
    """Samples in the order of the tar.

    Args:
        walk: at the tar's start.
        is_hashed: whether the media is read for its sha256; else that is of nothing.
        is_any_media: take any member that is no text or JSON for media, where none has a known extension.

    Yields:
        Samples; where the tar breaks off, the last one so far, and then one that is nothing but the problem.
    """
    sample: Sample | None = None
    try:
        for member in walk.members():
            key, extension = split_name(member.name)
            if not extension or member.special == "folder":
                continue
            if sample is None or key != sample.key:
                if sample is not None:
                    yield sample
                sample = Sample(key)
            sample.add(extension, member, walk, is_hashed=is_hashed, is_any_media=is_any_media)
    except BrokenTarError as error:
        if sample is not None:
            # what would have followed is not known: a text may be lost that belongs to it
            sample.problem = sample.problem or "the tar breaks off here"
            yield sample
        yield Sample("", problem=str(error))
        return
    if sample is not None:
        yield sample
