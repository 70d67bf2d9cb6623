"""Figures of task pairs, pollution and similarity: a heat-map a kind and arm."""

import html
from typing import Any, NamedTuple

import altair as alt
import numpy as np

from cl_bench.report.accuracies import MOST_CELLS, mean_over_runs
from cl_bench.report.charts import ROWS, finished, rounded
from cl_bench.report.label_table import PAIRS
from cl_bench.report.pairs import SCALES, Pairs, parts
from cl_bench.stats import Floats

AXES = {  # of rows, of columns
    "pollution": ("Pollution of task i", "By the weights of task j"),
    "similarity": ("Task i", "Task j"),
}
DOMAINS = {  # of colours, where a kind has bounds
    "declared": (0, 1), "fisher_overlap": (0, 1), "linear_cka": (0, 1),
    "subspace_overlap": (0, 1), "gradient_cosine": (-1, 1),
    "absolute_share": (0, 1), "undefined": (0, 1),
}  # fmt: skip
COMMON = ("causal", "probe_transfer")  # one range of colours for all arms
CAPTIONS = {
    "pollution": "<b>Pollution of task i (rows) by the weights that task j protects "
    "(columns)</b>, after the last task, mean over runs. Of a task with itself the first "
    "two are 1 and the absolute share is ½. The ratio as printed is ill-conditioned: its "
    "denominator changes sign, so that a few examples decide it; compare the other "
    "kinds. Causal is test accuracy on task i minus that with the weights of task j set "
    "to 0.",
    "similarity": "<b>Similarity of task i (rows) and task j (columns)</b>, mean over "
    "runs. As the stream is set: the share of pixels or labels that neither task moves, "
    "or 1 − the angle between them / 180°; the truth that the others estimate. Fisher "
    "overlap, linear CKA (last hidden layer) and subspace overlap (inputs of all layers) "
    "compare the network at the end of task i with that at the end of task j; gradient "
    "cosine is of both tasks at the last network. These are symmetric and shown once. "
    "Probe transfer: accuracy on task j of a linear probe on the last hidden layer at "
    "the end of task i, minus that on an untrained network.",
}


class Maps(NamedTuple):
    """The heat-maps under one caption."""

    charts: dict[str, dict[str, Any]]  # element id -> specification
    caption: str
    name: str


def all_of(arms: list[tuple[str, Pairs]], key: str) -> list[Maps]:
    """The maps of each family, then of each part of the network that was recorded.

    `arms` are labels and what they recorded.
    """
    found = []
    names = [label for label, _ in arms]
    recorded = parts([own for _, own in arms])
    for p, (family, part, every) in enumerate(recorded):
        end = f"-part{p}" if part else ""
        bounds = domains(every)
        charts = {
            f"{family}-{key}-{i}-{k}{end}": spec
            for i, (label, of) in enumerate(zip(names, every, strict=True))
            for k, spec in enumerate(heat_maps(family, label, of, bounds))
        }
        name = f"Heat-maps: {family} by task pair"
        caption = CAPTIONS[family]
        if part:
            name, caption = f"{name}, {part}", _part_caption(family, part)
        if charts:
            found.append(Maps(charts, caption, name))
    return found


def _part_caption(family: str, part: str) -> str:
    layer, _, quantile = part.partition("/")
    of = "mean over its neurons"
    if quantile:
        of = f"{quantile.removeprefix('q').lstrip('0')} % quantile over its neurons"
    where = f"<b>{family.title()} by task pair, layer {html.escape(layer)}</b>"
    return f"{where}: {html.escape(of)}, mean over runs; axes as above."


def domains(found: list[dict[str, Floats]]) -> dict[str, tuple[float, float]]:
    """Kind -> lowest and highest colour, of what all arms recorded; of some kinds.

    Kinds without bounds have a range an arm: one ill-conditioned ratio would fill it.
    """
    common = {}
    for kind in COMMON:
        means = [mean_over_runs(of[kind])[0] for of in found if kind in of]
        values = [v for mean in means for v in mean[np.isfinite(mean)].tolist()]
        if values and min(values) < max(values):
            scale = SCALES.get(kind, 1.0)
            common[kind] = (scale * min(values), scale * max(values))
    return DOMAINS | common


def heat_maps(
    family: str,
    label: str,
    found: dict[str, Floats],
    bounds: dict[str, tuple[float, float]],
) -> list[dict[str, Any]]:
    """One heat-map a kind of a family of `PAIRS`: the mean over runs by task pair."""
    return [
        _heat_map(
            f"{label}: {title}",
            SCALES.get(kind, 1.0) * found[kind],
            AXES[family],
            bounds.get(kind),
        )
        for kind, title in PAIRS[family].items()
        if kind in found
    ]


def tasks_shown(count: int) -> list[int]:
    """At most `MOST_CELLS` of so many tasks, evenly spaced."""
    at = np.linspace(0, count - 1, min(MOST_CELLS, count))
    return np.round(at).astype(int).tolist()


def _heat_map(
    title: str,
    matrix: Floats,
    axes: tuple[str, str],
    domain: tuple[float, float] | None,
) -> dict[str, Any]:
    mean, n = mean_over_runs(matrix)
    tasks = tasks_shown(len(mean))
    rows = [
        {"i": i + 1, "j": j + 1, "mean": rounded(mean[i, j]), "n": int(n[i, j])}
        for i in tasks
        for j in tasks
        if n[i, j]
    ]
    bounds = list(domain) if domain else alt.Undefined
    every = [task + 1 for task in tasks]
    scale = alt.Scale(domain=every)
    chart = alt.Chart(ROWS).mark_rect().encode(
        x=alt.X("j:O", title=axes[1], axis=alt.Axis(labelAngle=0), scale=scale),
        y=alt.Y("i:O", title=axes[0], scale=scale),
        color=alt.Color(
            "mean:Q", title=None, scale=alt.Scale(scheme="viridis", domain=bounds),
            legend=alt.Legend(gradientLength=160, gradientThickness=10, format=".2~g"),
        ),
        tooltip=[
            alt.Tooltip("i:O", title="Task i"), alt.Tooltip("j:O", title="Task j"),
            alt.Tooltip("mean:Q", title=title, format=".4~g"),
            alt.Tooltip("n:Q", title="Runs"),
        ],
    )  # fmt: skip
    shown = chart.properties(title=alt.TitleParams(title, limit=270))
    return finished(shown, rows, 200, "")
