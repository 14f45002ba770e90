"""What ways to deduplicate are compared with: groups found by looking at all pairs."""

from __future__ import annotations

from collections.abc import Callable


def components(count: int, is_edge: Callable[[int, int], bool]) -> list[set[int]]:
    """Connected components of members 0 to count - 1."""
    waiting, found = set(range(count)), []
    while waiting:
        group, ends = set(), [waiting.pop()]
        while ends:
            at = ends.pop()
            group.add(at)
            near = {other for other in waiting if is_edge(at, other)}
            waiting -= near
            ends += near
        found.append(group)
    return found
