"""What ran of each group, its batches of lanes taken together."""

from collections.abc import Mapping
from typing import Any

SUMMED = ("lanes", "wall_seconds", "compile_seconds", "lane_segments")


def joined(facts: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Group key -> its group.json; of a group that ran in batches, one of all.

    `facts`: the folder's name -> its group.json. A batch has the folder KEY+1, KEY+2, ...
    (`launch.batches`). Lanes and times are summed, the speed is that of all lane-steps
    in all the time; the rest is the first batch's.
    """
    parts: dict[str, list[dict[str, Any]]] = {}
    for folder, own in sorted(facts.items()):
        parts.setdefault(folder.partition("+")[0], []).append(own)
    return {key: _together(batches) for key, batches in parts.items()}


def _together(batches: list[dict[str, Any]]) -> dict[str, Any]:
    first = batches[0]
    if len(batches) == 1:
        return first
    sums = {
        name: sum(batch.get(name) or 0 for batch in batches)
        for name in SUMMED
        if name in first
    }
    known = [b for b in batches if b.get("lane_steps_per_second")]
    steps = sum(b["lane_steps_per_second"] * b["wall_seconds"] for b in known)
    seconds = sum(b["wall_seconds"] for b in known)
    speed = steps / seconds if seconds else first.get("lane_steps_per_second")
    return first | sums | {"lane_steps_per_second": speed}
