"""Read shards with open_clip's own data loader, as its training does; print as JSON what came.

It runs in an environment that has open_clip and no corpusmith. Argument: JSON with `shards` (one string, braces
allowed), `count` (samples to ask of an epoch of training), `workers`, and `expected`: for each sample that should come
the path of its media and its caption. Prints the digests of what `training` and `validation` gave, and those of what
was `expected`, each made by open_clip's own transform and tokenizer; and the `shape` of one image.
"""

import hashlib
import json
import sys
from pathlib import Path

import open_clip  # pyright: ignore[reportMissingImports]
from open_clip_train.data import get_wds_dataset  # pyright: ignore[reportMissingImports]
from open_clip_train.params import parse_args  # pyright: ignore[reportMissingImports]
from PIL import Image


def main() -> None:
    """Load an epoch for training and one for validation."""
    asked = json.loads(sys.argv[1])
    arguments = ["--train-data", asked["shards"], "--val-data", asked["shards"], "--dataset-type", "webdataset"]
    counts = ["--train-num-samples", str(asked["count"]), "--batch-size", "1", "--workers", str(asked["workers"])]
    args = parse_args([*arguments, *counts])
    args.distributed, args.world_size = False, 1
    transform = open_clip.image_transform(64, is_train=False)
    tokenizer = open_clip.get_tokenizer("ViT-B-32")

    loaded = {}
    for name, is_train in (("training", True), ("validation", False)):
        batches = list(get_wds_dataset(args, transform, is_train, tokenizer=tokenizer).dataloader)
        loaded[name] = [digest(images[0], texts[0]) for images, texts in batches]
        loaded["shape"] = list(batches[0][0].shape)
    expected = [
        digest(transform(Image.open(Path(path)).convert("RGB")), tokenizer(text)[0]) for path, text in asked["expected"]
    ]
    print(json.dumps({**loaded, "expected": expected}))  # noqa: T201


def digest(image, tokens) -> str:
    """One hash for an image's tensor and its text's tokens."""
    return hashlib.sha256(image.numpy().tobytes() + tokens.numpy().tobytes()).hexdigest()


if __name__ == "__main__":
    main()
