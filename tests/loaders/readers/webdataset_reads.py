"""Read shards with whatever webdataset this Python has, as its users do; print as JSON what came.

It runs in environments that have no corpusmith. Argument: JSON with `tars`. Prints one object a sample, in the order in
which the loader gave them: `key`; `extensions`, those of its members; `sha256` of the media; `size`, `[width, height]`
as webdataset itself decodes, or null where it leaves the bytes alone; `caption` and `row` as decoded.
"""

import hashlib
import json
import sys

import webdataset as wds

METADATA = ("txt", "json")


def main() -> None:
    """Read twice: the bytes as they are, and decoded."""
    tars = json.loads(sys.argv[1])["tars"]
    raw = list(wds.WebDataset(tars, shardshuffle=False))
    decoded = list(wds.WebDataset(tars, shardshuffle=False).decode("pil"))
    print(json.dumps([told(*pair) for pair in zip(raw, decoded, strict=True)]))  # noqa: T201


def told(raw: dict, decoded: dict) -> dict:
    """One sample for the test that asked."""
    extensions = [name for name in raw if not name.startswith("__")]
    (media,) = [name for name in extensions if name not in METADATA]
    return {
        "key": raw["__key__"],
        "extensions": extensions,
        "sha256": hashlib.sha256(raw[media]).hexdigest(),
        "size": getattr(decoded[media], "size", None),
        "caption": decoded.get("txt"),
        "row": decoded["json"],
    }


if __name__ == "__main__":
    main()
