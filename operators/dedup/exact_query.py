"""The SQL of dedup.exact: over `pool` (uid, key_0 …, perhaps preference), and perhaps `delivered`, the samples of
finished corpora (uid, key_0 …, place of the corpus in the list, its name).

Most rows have no twin. A first grouping by a hash of the keys, 8 bytes each, finds those that may have one; only these
are grouped by the keys themselves, and only groups of several are kept to be joined with the pool.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from corpusmith.operators.dedup.groups import DEDUP_GROUP, DEDUP_SIZE
from corpusmith.operators.duck import quoted
from corpusmith.schemas.fates import Fate
from corpusmith.schemas.identity import UID_HEX_DIGITS

_PLACE_DIGITS = 6
_SAMPLE = f"lpad(place::VARCHAR, {_PLACE_DIGITS}, '0') || delivered.uid || corpus"
"""A delivered sample in one text: of several that is the least which represents them."""
_TAKEN_UID = f"substr(taken, {_PLACE_DIGITS + 1}, {UID_HEX_DIGITS})"
_TAKEN_CORPUS = f"substr(taken, {_PLACE_DIGITS + UID_HEX_DIGITS + 1})"


@dataclass(frozen=True)
class ExactQuery:
    """Statements for one pool.

    Args:
        on: the columns whose values, or their forms, are the keys, in order.
        label: what twins share, for people: `duplicate url`.
        has_preference: whether the pool has a preference.
        is_against: whether there is a table `delivered`.
    """

    on: Sequence[str]
    label: str
    has_preference: bool
    is_against: bool

    def preparations(self) -> list[str]:
        """Statements that make the table of groups: keys, own_uid, pool_rows, size and taken.

        `taken` is the delivered sample that represents the group, null where none does.
        """
        hashes = f"CREATE TEMP TABLE hashes AS SELECT hash({self._keys}) AS hash FROM ({self._all()}) GROUP BY hash"
        members = f"CREATE TEMP VIEW members AS FROM ({self._all()}) WHERE hash({self._keys}) IN (FROM hashes)"
        bests = f"JOIN (SELECT {self._keys}, max(preference) AS best FROM members GROUP BY {self._keys}) AS bests"
        own_uid = "min(uid) FILTER (preference IS NOT DISTINCT FROM best)" if self.has_preference else "min(uid)"
        groups = f"""
            CREATE TEMP TABLE groups AS
            SELECT {self._keys}, {own_uid} AS own_uid, count(uid) AS pool_rows, sum(counted)::BIGINT AS size,
                min(delivered) AS taken
            FROM members {f"{bests} USING ({self._keys})" if self.has_preference else ""}
            GROUP BY {self._keys} HAVING count(*) > 1
        """
        return [f"{hashes} HAVING count(*) > 1", members, groups]

    def facts(self) -> str:
        """One row: the counts that `Grouping.summary` tells, too."""
        elsewhere = ", coalesce(dropped_against, 0)::BIGINT AS dropped_against_corpora" if self.is_against else ""
        pool = f"SELECT count(*) AS rows, count(*) FILTER (NOT ({self._complete()})) AS failed FROM pool"
        twins = """
            SELECT sum(pool_rows - (taken IS NULL)::BIGINT) AS dropped, max(size) AS size,
                sum(pool_rows) FILTER (taken IS NOT NULL) AS dropped_against
            FROM groups WHERE pool_rows > 0
        """
        return f"""
            SELECT rows, (rows - failed - coalesce(dropped, 0))::BIGINT AS groups,
                coalesce(dropped, 0)::BIGINT AS dropped, failed,
                coalesce(size, (rows > failed)::BIGINT)::BIGINT AS largest {elsewhere}
            FROM ({pool}) CROSS JOIN ({twins})
        """

    def decisions(self) -> str:
        """One row for each of the pool, in any order."""
        missing = " ".join(
            f"WHEN {key} IS NULL THEN {quoted(f'missing {name}')}"
            for key, name in zip(self._each, self.on, strict=True)
        )
        place = f"CASE WHEN taken IS NULL THEN '' ELSE ' in ' || {_TAKEN_CORPUS} END"
        return f"""
            WITH judged AS (
                SELECT pool.uid, CASE {missing} END AS error, size,
                    coalesce({_TAKEN_UID}, own_uid, pool.uid) AS kept_uid, taken,
                    taken IS NOT NULL OR own_uid <> pool.uid AS is_dropped
                FROM pool LEFT JOIN groups USING ({self._keys})
            )
            SELECT uid,
                CASE WHEN error IS NOT NULL THEN '{Fate.FAILED}' WHEN is_dropped THEN '{Fate.REJECTED}' END AS fate,
                CASE WHEN is_dropped THEN {quoted(f"{self.label}: of ")} || kept_uid || {place} END AS reason,
                error,
                CASE WHEN error IS NULL THEN kept_uid END AS {DEDUP_GROUP.name},
                CASE WHEN error IS NULL THEN coalesce(size, 1) END AS {DEDUP_SIZE.name}
            FROM judged
        """

    @property
    def _each(self) -> list[str]:
        return [f"key_{i}" for i in range(len(self.on))]

    @property
    def _keys(self) -> str:
        return ", ".join(self._each)

    def _complete(self) -> str:
        return " AND ".join(f"{key} IS NOT NULL" for key in self._each)

    def _all(self) -> str:
        """All that stands for keys: rows, delivered samples, and these once more with their rows' keys."""
        preference = ", preference" if self.has_preference else ""
        nothing = ", NULL" if self.has_preference else ""
        own = (
            f"SELECT {self._keys}{preference}, uid, NULL AS delivered, 1 AS counted FROM pool WHERE {self._complete()}"
        )
        if not self.is_against:
            return own
        again = ", ".join(f"pool.{key}" for key in self._each)
        return f"""
            {own}
            UNION ALL SELECT {self._keys}{nothing}, NULL, {_SAMPLE}, 1 FROM delivered WHERE {self._complete()}
            UNION ALL FROM (
                SELECT {again}{nothing}, NULL, {_SAMPLE}, 0 FROM pool JOIN delivered USING (uid)
            ) AS again({self._keys}{preference}, uid, delivered, counted) WHERE {self._complete()}
        """
