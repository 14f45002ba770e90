"""What a balance did, for the report and for people: counts before and after, in bounded size whatever the pool."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from corpusmith.operators.balance.lexicon import Ints, Lexicon
from corpusmith.operators.balance.rule import Decided
from corpusmith.operators.balance.thresholds import tail_share

CURVE_POINTS = 200
TOP_ENTRIES = 20
SHOWN_LANGUAGES = 50


class Tally:
    """Adds up the decisions over pieces; in whatever order they come, the sum is the same.

    Args:
        lexicon: what was matched.
        counts: rows of each slot before.
        thresholds: t of each group.
        reference: the group whose t stands for all in the summary.
    """

    def __init__(self, lexicon: Lexicon, counts: Ints, thresholds: Ints, reference: int) -> None:
        self._lexicon = lexicon
        self._thresholds = thresholds
        self._reference = reference
        self.before = counts
        self.after = np.zeros(lexicon.slots, np.int64)
        self._rows = self._kept = self._failed = self._unmatched = self._expected = 0
        self._group_rows = np.zeros(len(lexicon.groups), np.int64)
        self._group_taken = np.zeros(len(lexicon.groups), np.int64)

    def add(self, decided: Decided) -> pa.RecordBatch:
        """Count a piece in; returns its decisions."""
        matches = decided.batch.column("balance_matches")
        self._rows += decided.batch.num_rows
        self._kept += decided.batch.column("fate").null_count
        self._failed += matches.null_count
        self._unmatched += int(np.count_nonzero(matches.drop_null().to_numpy() == 0))
        self._expected += decided.expected
        self._group_rows += decided.group_rows
        self._group_taken += decided.group_taken
        decided.after.add_to(self.after)
        return decided.batch

    def summary(self, texts: pa.Array, fingerprint: str, *, is_online: bool) -> dict[str, Any]:
        """JSON-able facts.

        Args:
            texts: the entries.
            fingerprint: of their list.
            is_online: nothing was cut: what is said of after the balance is what one draw of a loader would take.
        """
        ranked = np.argsort(-self.before, kind="stable")[: np.count_nonzero(self.before)]
        ranks = np.unique(np.geomspace(1, max(len(ranked), 1), CURVE_POINTS).round().astype(np.int64))[: len(ranked)]
        before, after = self.before[ranked[ranks - 1]], self.after[ranked[ranks - 1]]
        bounds = self._thresholds[self._lexicon.slot_groups]
        total = int(self.before.sum())
        return {
            "mode": "online" if is_online else "cut",
            "t": int(self._thresholds[self._reference]),
            "tail_share": int(self.before[self.before < bounds].sum()) / total if total else 0.0,
            "entries": len(texts),
            "entries_sha256": fingerprint,
            "matched_entries": len(ranked),
            "rows": self._rows,
            "rows_unmatched": self._unmatched,
            "failed": self._failed,
            "kept": self._kept,
            "taken": int(self._group_taken.sum()),
            "expected": self._expected / 2**40,
            "matches": total,
            "matches_after": int(self.after.sum()),
            "curve": [list(point) for point in zip(ranks.tolist(), before.tolist(), after.tolist(), strict=True)],
            "top": [self._shown(slot, texts) for slot in ranked[:TOP_ENTRIES].tolist()],
            **(self._languages() if self._lexicon.groups != ("",) else {}),
        }

    def _shown(self, slot: int, texts: pa.Array) -> list[Any]:
        """An entry with its counts; with its language, where that plays a part."""
        text = texts[int(self._lexicon.entries[slot])].as_py()
        language = self._lexicon.groups[self._lexicon.slot_groups[slot]]
        label = f"{text} ({language})" if language else text
        return [label, int(self.before[slot]), int(self.after[slot])]

    def _languages(self) -> dict[str, Any]:
        """The languages of the most rows: name, t, share of the tail, rows before, rows that the draw takes."""
        order = np.lexsort((np.arange(len(self._group_rows)), -self._group_rows))[:SHOWN_LANGUAGES]
        groups = self._lexicon.slot_groups
        shown = [
            {
                "language": self._lexicon.groups[g],
                "t": int(self._thresholds[g]),
                "tail_share": tail_share(self.before[groups == g], int(self._thresholds[g])),
                "rows": int(self._group_rows[g]),
                "taken": int(self._group_taken[g]),
            }
            for g in order.tolist()
        ]
        return {"languages": shown, "languages_in_all": len(self._group_rows)}
