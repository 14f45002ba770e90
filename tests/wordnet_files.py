"""A small WordNet in the format of the real one (wndb(5WN)): true byte offsets, index files, exception lists.

Some three dozen synsets with glosses of our own, among them words of several meanings, satellites, instances and
irregular forms. Tests that need WordNet itself look for it where Debian's wordnet-base puts it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

FILES = {"n": "noun", "v": "verb", "a": "adj", "s": "adj", "r": "adv"}
HEAD = "".join(f"  {number} made for tests, in the format of WordNet's files  \n" for number in range(1, 4))


@dataclass(frozen=True)
class Meaning:
    """A synset to be written.

    Args:
        name: how tests call it: dog.n.1.
        lemmas: as in the file, underscores and marks included.
        gloss: its definition.
        above: names of its hypernyms, of the same part of speech.
        is_instance: whether it is an instance of them, as New York is of a city.
    """

    name: str
    lemmas: tuple[str, ...]
    gloss: str
    above: tuple[str, ...] = ()
    is_instance: bool = field(default=False, kw_only=True)

    @property
    def pos(self) -> str:
        return self.name.split(".")[-2]


MEANINGS = (
    Meaning("entity.n.1", ("entity",), "whatever there is"),
    Meaning("object.n.1", ("object", "physical_object"), "a thing one can touch", ("entity.n.1",)),
    Meaning("animal.n.1", ("animal", "beast"), "a living thing that moves", ("object.n.1",)),
    Meaning("bird.n.1", ("bird",), "an animal with feathers", ("animal.n.1",)),
    Meaning("goose.n.1", ("goose",), "a large water bird", ("bird.n.1",)),
    Meaning("crane.n.1", ("crane",), "a bird with long legs", ("bird.n.1",)),
    Meaning("machine.n.1", ("machine",), "a thing that does work", ("object.n.1",)),
    Meaning("crane.n.2", ("crane",), "a machine that lifts loads", ("machine.n.1",)),
    Meaning("canine.n.1", ("canine", "canid"), "an animal of the family of dogs", ("animal.n.1",)),
    Meaning("pet.n.1", ("pet",), "an animal kept for company", ("animal.n.1",)),
    Meaning(
        "dog.n.1",
        ("dog", "domestic_dog", "Canis_familiaris"),
        'an animal that barks; "the dog | barks"',
        ("canine.n.1", "pet.n.1"),
    ),
    Meaning("corgi.n.1", ("corgi", "Welsh_corgi"), "a short dog from Wales", ("dog.n.1",)),
    Meaning("frank.n.1", ("frank", "dog", "hot_dog"), "a sausage in a bun", ("food.n.1",)),
    Meaning("food.n.1", ("food",), "what is eaten", ("entity.n.1",)),
    Meaning("plant.n.1", ("plant", "flora"), "a living thing that stays where it is", ("object.n.1",)),
    Meaning("flower.n.1", ("flower", "bloom"), "a plant with blossoms", ("plant.n.1",)),
    Meaning("berry.n.1", ("berry",), "a small fruit", ("food.n.1",)),
    Meaning("box.n.1", ("box",), "a thing to put things into", ("object.n.1",)),
    Meaning("bus.n.1", ("bus", "autobus"), "a long car for many", ("machine.n.1",)),
    Meaning("church.n.1", ("church",), "a house to pray in", ("object.n.1",)),
    Meaning("person.n.1", ("person", "human"), "one of us", ("animal.n.1",)),
    Meaning("woman.n.1", ("woman",), "a grown female person", ("person.n.1",)),
    Meaning("child.n.1", ("child", "kid"), "a young person", ("person.n.1",)),
    Meaning("city.n.1", ("city", "metropolis"), "a large town", ("entity.n.1",)),
    Meaning("new_york.n.1", ("New_York", "New_York_City"), "a city on the Hudson", ("city.n.1",), is_instance=True),
    Meaning("st_louis.n.1", ("St._Louis", "Saint_Louis"), "a city in Missouri", ("city.n.1",), is_instance=True),
    Meaning("caliber.n.1", (".22_caliber",), "a narrow rifle", ("object.n.1",)),
    Meaning("run.n.1", ("run", "running"), "a going on fast feet", ("entity.n.1",)),
    Meaning("run.v.1", ("run",), "to go on fast feet"),
    Meaning("dance.v.1", ("dance",), "to move to music"),
    Meaning("carry.v.1", ("carry", "transport"), "to take along"),
    Meaning("red.a.1", ("red", "reddish"), "of the colour of blood"),
    Meaning("large.a.1", ("large", "big"), "of much size"),
    Meaning("ready.s.1", ("ready(p)",), "in a state to begin"),
    Meaning("mere.s.1", ("mere(a)", "entity"), "no more than that"),
    Meaning("quickly.r.1", ("quickly", "fast"), "in little time"),
)
EXCEPTIONS: Mapping[str, str] = {
    "noun": "geese goose\nwomen woman\nchildren child\nbusses bus\n",
    "verb": "ran run\nrunning run\ncarried carry\n",
    "adj": "bigger big\n",
    "adv": "",
}


def write_wordnet(folder: Path, meanings: Sequence[Meaning] = MEANINGS) -> dict[str, str]:
    """Write a WordNet.

    Args:
        folder: made if it is not there.
        meanings: in the order of the files; of a word with several the first is its most frequent.

    Returns:
        Name of a meaning → its number, such as n00000123.
    """
    folder.mkdir(parents=True, exist_ok=True)
    offsets: dict[str, int] = {}
    for file in dict.fromkeys(FILES.values()):
        own = [one for one in meanings if FILES[one.pos] == file]
        at = len(HEAD)
        for one in own:
            offsets[one.name] = at
            at += len(_line(one, dict.fromkeys([*one.above, one.name], 0)).encode())
        (folder / f"data.{file}").write_text(HEAD + "".join(_line(one, offsets) for one in own), "utf-8")
        (folder / f"index.{file}").write_text(HEAD + _index(own, offsets), "utf-8")
        (folder / f"{file}.exc").write_text(EXCEPTIONS[file], "utf-8")
    return {one.name: f"{one.pos}{offsets[one.name]:08d}" for one in meanings}


def _line(one: Meaning, offsets: Mapping[str, int]) -> str:
    words = " ".join(f"{lemma} 0" for lemma in one.lemmas)
    mark = "@i" if one.is_instance else "@"
    pointers = "".join(f" {mark} {offsets[name]:08d} {one.pos} 0000" for name in one.above)
    frames = " 01 + 02 00" if one.pos == "v" else ""
    head = f"{offsets[one.name]:08d} 03 {one.pos} {len(one.lemmas):02x} {words} {len(one.above):03d}"
    return f"{head}{pointers}{frames} | {one.gloss}  \n"


def _index(meanings: Sequence[Meaning], offsets: Mapping[str, int]) -> str:
    senses: dict[str, list[str]] = {}
    for one in meanings:
        for lemma in one.lemmas:
            senses.setdefault(lemma.partition("(")[0].lower(), []).append(one.name)
    lines = []
    for lemma, names in sorted(senses.items()):
        pos = "a" if names[0].split(".")[-2] == "s" else names[0].split(".")[-2]
        numbers = " ".join(f"{offsets[name]:08d}" for name in names)
        lines.append(f"{lemma} {pos} {len(names)} 1 @ {len(names)} 0 {numbers}  \n")
    return "".join(lines)
