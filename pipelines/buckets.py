"""Buckets: the partition of everything by the head of the root uid.

Source rows, results of every operator and decisions of reduces are all cut by the same bits, so that what belongs to a
row is found in one small range of one file whatever the number of rows. Children stay with their root.
"""

from __future__ import annotations

from dataclasses import dataclass

PREFIX_BITS = 16
PREFIX_HEX = PREFIX_BITS // 4
TARGET_BUCKET_ROWS = 1 << 16


@dataclass(frozen=True, order=True)
class Bucket:
    """The root uids whose first `bits` bits are `index`."""

    bits: int
    index: int

    @property
    def name(self) -> str:
        """`04-003`: bits and index, sortable."""
        return f"{self.bits:02d}-{self.index:05d}"

    @staticmethod
    def parse(name: str) -> Bucket:
        """The inverse of `name`."""
        bits, index = name.split("-")
        return Bucket(int(bits), int(index))

    @property
    def low(self) -> str:
        """First prefix in the bucket; a uid belongs if low <= uid < high."""
        return f"{self.index << (PREFIX_BITS - self.bits):0{PREFIX_HEX}x}"

    @property
    def high(self) -> str:
        """First prefix behind the bucket; 'g' sorts behind every hex digit."""
        end = (self.index + 1) << (PREFIX_BITS - self.bits)
        return "g" if end >> PREFIX_BITS else f"{end:0{PREFIX_HEX}x}"

    def overlapping(self, bits: int) -> list[Bucket]:
        """The buckets of the partition by `bits` that share uids with this one."""
        if bits <= self.bits:
            return [Bucket(bits, self.index >> (self.bits - bits))]
        finer = bits - self.bits
        return [Bucket(bits, index) for index in range(self.index << finer, (self.index + 1) << finer)]


def bucket_bits(rows: int) -> int:
    """Bits for a corpus of so many rows: buckets of about TARGET_BUCKET_ROWS."""
    return min(PREFIX_BITS, max(0, (max(rows, 1) - 1) // TARGET_BUCKET_ROWS).bit_length())


def all_buckets(bits: int) -> list[Bucket]:
    """Every bucket of a partition."""
    return [Bucket(bits, index) for index in range(1 << bits)]
