"""What each metric is called on a page, and which of them a summary is about."""

from collections.abc import Sequence

from cl_bench.report.label_table import AVERAGE, LABELS, Label

SCORES = ("online_accuracy", "test_accuracy", AVERAGE, "online_loss")
"""What the summary is about, where a study does not say: the first that was recorded."""


def parent(metric: str) -> str:
    """'dead_units/h1' belongs to 'dead_units'."""
    return metric.partition("/")[0]


def label(metric: str) -> Label:
    """How to show a metric; the part after a '/' is put in brackets."""
    name, _, part = metric.partition("/")
    title = name.replace("_", " ")
    found = LABELS.get(name, Label(title[:1].upper() + title[1:]))
    return found._replace(title=f"{found.title} ({part})") if part else found


def axis_title(metric: str) -> str:
    """'Online accuracy (%)'."""
    found = label(metric)
    return f"{found.title} ({found.unit})" if found.unit else found.title


def score_metric(metrics: list[str], wanted: Sequence[str] = ()) -> str | None:
    """The metric the summary is about: the first of those wanted that was recorded.

    Otherwise of `SCORES`, of those where higher is better, of all.
    """
    for name in (
        *wanted,
        *SCORES,
        *(m for m in metrics if label(m).better == "higher"),
    ):
        if name in metrics:
            return name
    rest = [m for m in metrics if m != "diverged"]
    return rest[0] if rest else None
