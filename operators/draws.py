"""Draws: a number for each row from the seed and the row's identity alone.

A row's draw is xxh64 of a salt and its uid under the seed. So it depends on no order, no sharding and no parallelism;
the rows that a lower bound lets through are among those of a higher one; and operators with different salts draw
independently of each other.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

DRAWS = 2**64
"""Number of equally likely draws: the hash has 64 bits."""


def draws(uids: pa.Array | pa.ChunkedArray, seed: int, salt: str = "") -> npt.NDArray[np.uint64]:
    """A uniform draw for each row.

    Args:
        uids: (N,) strings.
        seed: of the recipe.
        salt: tells operators apart, such as "balance "; what follows it is the uid.

    Returns:
        (N,) uint64.
    """
    digest, seed = xxhash.xxh64_intdigest, seed % DRAWS
    keys = pc.cast(uids, pa.large_binary())
    if salt:
        salted = pa.scalar(salt.encode(), pa.large_binary())
        keys = pc.binary_join_element_wise(salted, keys, pa.scalar(b"", pa.large_binary()))
    return np.fromiter((digest(key, seed) for key in keys.to_pylist()), np.uint64, len(keys))


def fractions(uids: pa.Array | pa.ChunkedArray, seed: int, salt: str = "") -> npt.NDArray[np.float64]:
    """As `draws`, uniform in [0, 1): the upper 53 bits, all that a double can tell apart there."""
    return (draws(uids, seed, salt) >> np.uint64(11)) / float(1 << 53)
