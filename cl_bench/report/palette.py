"""Colours and dashes of the arms, the same in the page and in the paper figures."""

from typing import NamedTuple

from cl_bench.report.panels import Arm
from cl_bench.report.scores import BASELINES, line

# Okabe & Ito (2008) and Tol (2021): told apart under every common colour blindness.
COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00",
    "#56B4E9", "#882255", "#999933", "#332288",
)  # fmt: skip
BACKPROP = "#3A3A3A"  # what everything is compared with is drawn in near-black
DASHES = ((), (6, 3), (2, 2), (8, 3, 2, 3))
ORACLE = (3, 2)


class Stroke(NamedTuple):
    """How one arm is drawn; `dash` in pixels, () = solid."""

    colour: str
    dash: tuple[int, ...]


def strokes(arms: list[Arm]) -> dict[str, Stroke]:
    """Label -> stroke: colours in order, then again dashed; oracles always dashed."""
    found: dict[str, Stroke] = {}
    plain = [a for a in arms if a.method == "backprop"]
    plain = [a for a in plain if a.training == "sequential"] or plain
    named = [arm for name in BASELINES for arm in plain if line(arm) == name]
    grey = (named or plain)[0].label if plain else None
    rest = [arm for arm in arms if arm.label != grey]
    if grey is not None:
        found[grey] = Stroke(BACKPROP, ())
    for i, arm in enumerate(rest):
        dash = DASHES[i // len(COLOURS) % len(DASHES)]
        found[arm.label] = Stroke(COLOURS[i % len(COLOURS)], dash)
    for arm in arms:
        if arm.oracle:
            found[arm.label] = found[arm.label]._replace(dash=ORACLE)
    return {arm.label: found[arm.label] for arm in arms}


def ordered(n: int) -> list[str]:
    """n colours from dark to light for ordered values (viridis without its yellow)."""
    anchors = ("#440154", "#3B528B", "#21918C", "#5EC962", "#B5C51F")
    if n <= 1:
        return [anchors[1]]
    return [_between(anchors, i / (n - 1)) for i in range(n)]


def _between(anchors: tuple[str, ...], t: float) -> str:
    at = min(int(t * (len(anchors) - 1)), len(anchors) - 2)
    part = t * (len(anchors) - 1) - at
    rgb = [
        round(int(anchors[at][i : i + 2], 16) * (1 - part)
              + int(anchors[at + 1][i : i + 2], 16) * part)
        for i in (1, 3, 5)
    ]  # fmt: skip
    return "#" + "".join(f"{c:02X}" for c in rgb)
