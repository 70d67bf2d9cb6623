"""Studies joined by benchmark: arms with unique labels, curves, and diverged runs."""

import json
import math
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from cl_bench import stats
from cl_bench.report import accuracies, blocks, labels
from cl_bench.report import pairs as task_pairs
from cl_bench.report.accuracies import Accuracies
from cl_bench.report.blocks import Blocks
from cl_bench.report.studies import Run, Study, matrix, ranked_by, recorded
from cl_bench.stats import Band, Floats

ORACLE = " (oracle)"  # ends the label of an arm told more than its stream offers


class Arm(NamedTuple):
    """One line of the figures: the runs that differ in nothing but the seed."""

    label: str
    study: str
    method: str
    oracle: bool
    settings: dict[str, Any]
    runs: list[Run]
    groups: dict[str, dict[str, Any]]  # group.json of the groups it ran in
    num_tasks: int  # length of its stream
    scores: Floats  # [runs, tasks] recorded unit; diverged = worst, NaN = not reached
    diverged: np.ndarray  # [runs] bool
    bands: dict[str, Band]  # metric -> mean curve and interval, shown unit
    blocks: Blocks  # the points of its drawn curves
    drawn: dict[str, Band]  # as `bands`, averaged over `blocks`
    curves: dict[str, Floats]  # metric -> [runs, tasks] that `bands` are the mean of
    accuracies: Accuracies | None  # of every task after every task, if recorded
    pairs: task_pairs.Pairs  # 'pollution' -> kind -> [runs, T, T], if recorded

    @property
    def seeds(self) -> list[int]:
        """Seed of each run, in the order of `scores`."""
        return [run.seed for run in self.runs]

    @property
    def training(self) -> str:
        """'sequential', 'cumulative' or 'joint', as its stream is set."""
        return str(self.settings.get("stream.training") or "sequential")

    @property
    def last(self) -> int:
        """Number of tasks in the last tenth of its stream."""
        return max(1, math.ceil(self.num_tasks / 10))


class Panel(NamedTuple):
    """One benchmark: everything that may be drawn into one figure."""

    benchmark: str
    arms: list[Arm]
    metrics: list[str]
    score: str | None  # the metric that the summary is about
    num_tasks: int
    axis: str  # what the x axis of its curves counts: `blocks.TASK` or `EXAMPLES`


def join(studies: list[Study], score: str | None = None) -> list[Panel]:
    """One panel per benchmark, in the order in which the studies name them.

    `score` is what its summary is about where it was recorded; otherwise the studies'
    own `score`, or the first of `labels.SCORES`.
    """
    studies = _named_apart(studies)
    benchmarks = dict.fromkeys(r.benchmark for s in studies for r in s.runs)
    return [_panel(name, studies, score) for name in benchmarks]


def _named_apart(studies: list[Study]) -> list[Study]:
    """Two studies of one name are told apart by their folders."""
    names = Counter(s.name for s in studies)
    folders = Counter(s.workdir.name for s in studies)
    return [
        s
        if names[s.name] == 1
        else s._replace(
            name=s.workdir.name if folders[s.workdir.name] == 1 else str(s.workdir)
        )
        for s in studies
    ]


def _panel(benchmark: str, studies: list[Study], asked: str | None) -> Panel:
    rows = [
        np.array([i for i, r in enumerate(s.runs) if r.benchmark == benchmark], int)
        for s in studies
    ]
    present = [(s, r) for s, r in zip(studies, rows, strict=True) if len(r)]
    metrics = list(dict.fromkeys(m for s, r in present for m in _measured(s, r)))
    own = [ranked_by(s, s.runs[r[0]]) for s, r in present]
    score = labels.score_metric(metrics, [s for s in (asked, *own) if s])
    tasks = max(_last_task(s, r) for s, r in present)
    worst = _worst(present, score)
    split = [(s, r, _arms_of(s, r), blocks.examples(s)) for s, r in present]
    used = Counter(label for _, _, arms, _ in split for label in arms)
    parts = [(s, own, seen) for s, _, arms, seen in split for own in arms.values()]
    axis = blocks.axis(
        [np.fmax.reduce(seen[own], axis=0) for _, own, seen in parts],
        [_length(s, [s.runs[r] for r in own]) for s, own, _ in parts],
    )
    panel = Panel(benchmark, [], metrics, score, tasks, axis)
    for study, own, arms, seen in split:
        tables = _tables(study, panel, worst, own) | {"is_examples": seen}
        for label, picked in arms.items():
            name = f"{study.name}/{label}" if used[label] > 1 else label
            panel.arms.append(_arm(name, study, picked, panel, tables))
    return panel


def _measured(study: Study, rows: np.ndarray) -> list[str]:
    return [m for m in study.metrics if np.isfinite(matrix(study, m)[rows]).any()]


def _last_task(study: Study, rows: np.ndarray) -> int:
    return int(np.nonzero(recorded(study)[rows].any(axis=0))[0].max()) + 1


def _worst(present: list[tuple[Study, np.ndarray]], score: str | None) -> float:
    """The score of a diverged run: the metric's own, or the worst that was seen."""
    if score is None:
        return 0.0
    own = labels.label(score).worst
    if own is not None:
        return own
    seen = np.concatenate([matrix(s, score)[r].ravel() for s, r in present])
    seen = seen[np.isfinite(seen)]
    return float(seen.max() if labels.label(score).better == "lower" else seen.min())


def _arms_of(study: Study, rows: Iterable[int]) -> dict[str, list[int]]:
    """Label -> rows. A label that covers several settings is split by them."""
    by_label: dict[str, dict[str, list[int]]] = {}
    for row in rows:
        run = study.runs[row]
        settings = json.dumps(run.settings, sort_keys=True, default=str)
        by_label.setdefault(run.arm, {}).setdefault(settings, []).append(int(row))
    arms: dict[str, list[int]] = {}
    for label, variants in by_label.items():
        firsts = [study.runs[v[0]].settings for v in variants.values()]
        for (_, picked), own in zip(variants.items(), firsts, strict=True):
            suffix = "".join(f" {k}={show(own.get(k))}" for k in varied(firsts))
            name = label + (suffix if len(variants) > 1 else "")
            marked = study.runs[picked[0]].oracle and not name.endswith(ORACLE)
            arms.setdefault(name + ORACLE * marked, []).extend(picked)
    return arms


def varied(settings: list[dict[str, Any]]) -> list[str]:
    """The settings that do not have one value everywhere."""
    keys = dict.fromkeys(k for s in settings for k in s)
    return [k for k in keys if len({show(s.get(k)) for s in settings}) > 1]


def show(value: Any) -> str:
    """A setting as text: 0.003, 100x100, none."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return "x".join(map(show, value)) or "none"
    return "none" if value is None else str(value)


def _tables(
    study: Study, panel: Panel, worst: float, rows: np.ndarray
) -> dict[str, np.ndarray]:
    """[runs, tasks] of every metric (recorded unit), and 'is_diverged', 'is_score'."""
    bad = _diverged(study, panel.score, rows)
    found = {"is_diverged": bad}
    for metric in panel.metrics:
        values = matrix(study, metric)
        if metric == panel.score:
            found["is_score"] = _filled(values, bad, worst)
        own = worst if metric == panel.score else labels.label(metric).worst
        if metric != "diverged":
            # A diverged network's diagnostics mean nothing; its scores are the worst.
            values = _filled(values, bad, np.nan if own is None else own)
        found[metric] = values
    return found


def _filled(values: Floats, bad: np.ndarray, worst: float) -> Floats:
    kept = np.isfinite(values) & ~bad
    filled = stats.count_diverged(np.where(kept, values, 0.0), bad, worst=worst)
    return np.where(kept | bad, filled, np.nan)


def _diverged(study: Study, score: str | None, rows: np.ndarray) -> np.ndarray:
    """[runs, tasks] bool, from the first task on in which a run diverged."""
    seen = recorded(study)
    bad = np.nan_to_num(matrix(study, "diverged")) > 0
    if score is not None:
        measured = np.isfinite(matrix(study, score))
        bad |= seen & ~measured & measured[rows].any(axis=0)
    return np.logical_or.accumulate(bad, axis=1) & seen


def _arm(
    label: str, study: Study, rows: list[int], panel: Panel, tables: dict[str, Any]
) -> Arm:
    runs = [study.runs[r] for r in rows]
    padding = ((0, 0), (0, max(0, panel.num_tasks - study.num_tasks)))

    def of(table: np.ndarray, fill: Any = np.nan) -> np.ndarray:
        return np.pad(table[rows], padding, constant_values=fill)[:, : panel.num_tasks]

    curves = {m: of(tables[m]) * labels.label(m).scale for m in panel.metrics}
    bands = {m: stats.band(curve) for m, curve in curves.items()}
    length = _length(study, runs)
    points = blocks.of_tasks(panel.num_tasks)
    if panel.axis == blocks.EXAMPLES:
        ends = np.fmax.reduce(of(tables["is_examples"]), axis=0)
        points = blocks.of_examples(ends, length)
    drawn = bands
    if points.size > 1:
        parts = {m: blocks.in_blocks(c, points.size) for m, c in curves.items()}
        drawn = {m: stats.band(part) for m, part in parts.items()}
    empty = np.full((len(study.runs), study.num_tasks), np.nan)
    diverged = np.any(of(tables["is_diverged"], False), axis=1)
    return Arm(
        label, study.name, runs[0].method, any(r.oracle for r in runs),
        runs[0].settings, runs,
        {r.group: study.groups[r.group] for r in runs if r.group in study.groups},
        length, of(tables.get("is_score", empty)), np.asarray(diverged), bands, points,
        drawn, curves, accuracies.of(study, rows, tables["is_diverged"][rows], length),
        task_pairs.of(study, rows),
    )  # fmt: skip


def _length(study: Study, runs: list[Run]) -> int:
    """Tasks of the stream: as configured, or as far as the study has come."""
    planned = runs[0].num_tasks or runs[0].settings.get("stream.num_tasks")
    if isinstance(planned, int):
        return planned
    rows = np.array([r.benchmark == runs[0].benchmark for r in study.runs])
    return _last_task(study, np.nonzero(rows)[0])
