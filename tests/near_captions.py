"""Captions of which many are nearly another one: drawn, and titles with tags of drawings where installed; edited."""

from __future__ import annotations

import random

from captions import drawing_texts, drawn_captions


def edited_captions(count: int, seed: int = 0) -> list[str]:
    """Captions as the web has them, the second half of which are others of the first with a few edits or none.

    An edit drops a character, puts another in its place, or adds a word.

    Args:
        count: captions.
        seed: of the draw.
    """
    drawn = random.Random(seed)
    captions = [caption for batch in drawn_captions(count, seed) for caption in batch.to_pylist()]
    titles = [" ".join([title, *tags]) for title, tags in drawing_texts()]
    share = min(len(titles), count // 4)
    captions[:share] = drawn.sample(titles, share)
    for i in range(count // 2, count):
        text = list(captions[drawn.randrange(count // 2)])
        for _ in range(drawn.randrange(4)):
            text[drawn.randrange(len(text))] = drawn.choice(["", "x", " new", "S"])
        captions[i] = "".join(text)
    return captions
