"""Photos that lie in the wheels of scikit-image and scikit-learn, described in plain English and other languages.

Licences as the two packages name them (`skimage.data`'s docstrings, `sklearn/datasets/images/README.txt`). Each photo
is served as it lies there, always under a name that ends in `.jpg` although most are PNG, and again as a small copy,
a second encoding, a cut of its middle, a thumbnail and a strip: what is found of one photo on many pages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from corpusmith.pipelines.demo.choice import choose
from corpusmith.pipelines.demo.render import Cut, Picture


@dataclass(frozen=True)
class Photo:
    """One photo of a package.

    Args:
        file: path below the package's folder.
        license: as the package names it.
        english: descriptions in English.
        others: descriptions in other languages.
    """

    file: str
    license: str
    english: tuple[str, ...]
    others: tuple[str, ...] = ()


COPIES: Mapping[str, Callable[[Path], Cut]] = {
    "small": partial(Cut, longer_side_px=320),
    "again": partial(Cut, longer_side_px=512, quality=35),
    "middle": partial(Cut, box=(0.15, 0.15, 0.85, 0.85), longer_side_px=400),
    "thumb": partial(Cut, longer_side_px=48),
    "strip": partial(Cut, box=(0.0, 0.4, 1.0, 0.58), longer_side_px=480),
}


def photo_pictures(skimage: Path, sklearn: Path) -> Iterator[Picture]:
    """Pictures of all photos.

    Args:
        skimage: folder of the installed scikit-image.
        sklearn: folder of the installed scikit-learn.
    """
    for photo in SKIMAGE_PHOTOS:
        yield from _pictures(photo, skimage / "data" / photo.file, "scikit-image")
    for photo in SKLEARN_PHOTOS:
        yield from _pictures(photo, sklearn / "datasets" / "images" / photo.file, "scikit-learn")


def _pictures(photo: Photo, file: Path, source: str) -> Iterator[Picture]:
    yield Picture(f"photos/{file.stem}.jpg", file, photo.english + photo.others, source, photo.license)
    for name, cut in COPIES.items():
        key = f"photos/{name}/{file.stem}.jpg"
        caption = choose(dict.fromkeys((*photo.english, f"{file.stem}.jpg"), 1.0), key)
        yield Picture(key, cut(file), (caption,), source, photo.license)


SKLEARN_PHOTOS = (
    Photo(
        "china.jpg",
        "CC-BY-2.0",
        (
            "A Chinese temple with curved golden roofs under a blue sky",
            "Pavilion of the Summer Palace in Beijing, seen from below",
            "Travel photo: traditional architecture in China",
        ),
        (
            "Ein chinesischer Tempel mit geschwungenen goldenen Dächern unter blauem Himmel",
            "Un temple chinois aux toits dorés et recourbés sous un ciel bleu",
            "蓝天下有着金色弯曲屋顶的中国寺庙",
        ),
    ),
    Photo(
        "flower.jpg",
        "CC-BY-2.0",
        (
            "Close-up of an orange dahlia in full bloom",
            "A flower with many petals against a dark green garden",
            "Macro photograph of a flower, shallow depth of field",
        ),
        (
            "Nahaufnahme einer blühenden orangefarbenen Dahlie im Garten",
            "Primer plano de una dalia naranja en plena floración",
            "満開のオレンジ色のダリアの接写",
        ),
    ),
)

SKIMAGE_PHOTOS = (
    Photo(
        "astronaut.png",
        "public domain (NASA)",
        (
            "Portrait of a smiling astronaut in an orange space suit",
            "Astronaut Eileen Collins in front of a flag and a model of the space shuttle",
            "A woman in a space suit holds her helmet",
        ),
        (
            "Porträt einer lächelnden Astronautin in einem orangefarbenen Raumanzug",
            "Portrait d'une astronaute souriante vêtue d'une combinaison spatiale orange",
            "Портрет улыбающейся женщины-астронавта в оранжевом скафандре",
        ),
    ),
    Photo(
        "camera.png",
        "CC0-1.0",
        (
            "A man in a dark coat looks through a camera on a tripod, black and white photo",
            "Photographer at work on a lawn",
        ),
        (
            "Ein Mann im dunklen Mantel schaut durch eine Kamera auf einem Stativ",
            "Un hombre con abrigo oscuro mira por una cámara sobre un trípode",
        ),
    ),
    Photo(
        "chelsea.png",
        "CC0-1.0",
        (
            "Close-up of a tabby cat with green eyes",
            "Chelsea the cat looks past the camera",
            "Ginger tabby cat, whiskers and pink nose",
        ),
        (
            "Nahaufnahme einer getigerten Katze mit grünen Augen",
            "Gros plan sur un chat tigré aux yeux verts",
            "緑色の目をしたトラ猫のアップ",
            "Крупный план полосатой кошки с зелёными глазами",
        ),
    ),
    Photo(
        "coffee.png",
        "CC0-1.0",
        (
            "A cup of espresso in a red saucer on a wooden table",
            "Coffee cup with a small spoon, seen from above",
        ),
        (
            "Eine Tasse Espresso auf einer roten Untertasse auf einem Holztisch",
            "Una tazza di espresso con piattino rosso su un tavolo di legno",
            "木桌上红色碟子里的一杯浓缩咖啡",
        ),
    ),
    Photo(
        "rocket.jpg",
        "public domain (SpaceX)",
        (
            "A rocket lifts off at dusk in a cloud of smoke and fire",
            "Launch of a Falcon 9 rocket carrying the DSCOVR satellite",
        ),
        (
            "Eine Rakete hebt in der Dämmerung in einer Wolke aus Rauch und Feuer ab",
            "Une fusée décolle au crépuscule dans un nuage de fumée et de feu",
        ),
    ),
    Photo(
        "hubble_deep_field.jpg",
        "public domain (NASA)",
        (
            "The Hubble deep field: thousands of distant galaxies in a black sky",
            "Galaxies of many shapes and colours seen by the Hubble space telescope",
        ),
        ("Tausende ferne Galaxien am schwarzen Himmel, aufgenommen vom Weltraumteleskop Hubble",),
    ),
    Photo(
        "retina.jpg",
        "CC0-1.0",
        ("Fundus photograph of a healthy human retina", "Retina of an eye with optic disc and blood vessels"),
        ("Fotografía del fondo de ojo de una retina humana sana",),
    ),
    Photo(
        "coins.png",
        "no known copyright restrictions",
        ("Twenty-four ancient Greek coins from Pompeii in rows", "Old silver coins on a dark cloth"),
        ("Vierundzwanzig antike griechische Münzen aus Pompeji in Reihen",),
    ),
    Photo(
        "brick.png",
        "CC0-1.0",
        ("Texture of a pavement made of grey bricks", "Seamless brick wall background"),
        ("Texture d'un pavage de briques grises",),
    ),
    Photo("grass.png", "CC0-1.0", ("Grey-scale texture of dry grass", "Lawn from above, background texture")),
    Photo("gravel.png", "CC0-1.0", ("Small grey stones, gravel texture", "Crushed stone on a path, top view")),
    Photo(
        "horse.png",
        "CC0-1.0",
        ("Black silhouette of a standing horse", "Horse clip art, side view"),
        ("Schwarze Silhouette eines stehenden Pferdes", "Silhouette noire d'un cheval debout"),
    ),
    Photo("clock_motion.png", "public domain", ("A wall clock blurred by the motion of the camera", "IMG_20090211")),
    Photo("cell.png", "CC0-1.0", ("Quantitative phase image of a single cell from a hologram",)),
    Photo(
        "ihc.png",
        "no known copyright restrictions",
        ("Microscope image of stained colon tissue, brown and blue", "Immunohistochemical staining"),
    ),
    Photo("microaneurysms.png", "CC0-1.0", ("Detail of a retina with microaneurysms, green channel",)),
    Photo("text.png", "no known copyright restrictions", ("Handwritten mathematical formulas on lined paper",)),
)
