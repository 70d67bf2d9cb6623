"""What each metric is called, which way is better, and how it is computed.

A metric that is not here is shown under its own name, without a direction.
"""

from typing import NamedTuple


class Label(NamedTuple):
    """How one metric is shown."""

    title: str
    unit: str = ""  # '%' or nothing
    scale: float = 1.0  # shown value = recorded value * scale
    better: str = ""  # 'higher', 'lower', or '' where neither
    worst: float | None = None  # recorded value that a diverged run counts as
    formula: str = ""


_SCORE = {"unit": "%", "scale": 100.0, "better": "higher", "worst": 0.0}
_START = "measured before the task's first step, on its first 2,000 examples"
LABELS = {
    "online_accuracy": Label(
        "Online accuracy",
        **_SCORE,
        formula="mean over the task of [arg max of the prediction before the update "
        "= label]",
    ),
    "online_loss": Label(
        "Online loss",
        better="lower",
        formula="mean over the task of the loss before each update",
    ),
    "test_accuracy": Label(
        "Test accuracy", **_SCORE, formula="accuracy on held-out examples of the task"
    ),
    "dead_units": Label(
        "Dead units",
        "%",
        100.0,
        "lower",
        formula=f"share of hidden units with Σ|h| = 0, {_START}",
    ),
    "dormant_units": Label(
        "Dormant units",
        "%",
        100.0,
        "lower",
        formula="share of hidden units with E|hᵢ| / meanₖ E|hₖ| ≤ τ "
        f"(Sokar et al. 2023), {_START}",
    ),
    "effective_rank": Label(
        "Effective rank",
        better="higher",
        formula="exp(−Σ pᵢ ln pᵢ) with pᵢ = σᵢ / Σσ, σ the singular values of the "
        f"activations, {_START}",
    ),
    "approximate_rank": Label(
        "Approximate rank",
        better="higher",
        formula="smallest k with Σᵢ≤ₖ σᵢ² ≥ 0.99 Σ σᵢ², σ the singular values of the "
        f"activations, {_START}",
    ),
    "weight_magnitude": Label(
        "Weight magnitude", better="lower", formula="mean |w| over the weight matrices"
    ),
    "gradient_norm": Label(
        "Gradient norm",
        formula="Euclidean norm of the gradient of all parameters, mean over the task",
    ),
    "diverged": Label(
        "Diverged",
        "%",
        100.0,
        "lower",
        formula="share of runs that are not finite any more",
    ),
}
SCORES = ("online_accuracy", "test_accuracy", "online_loss")
"""The metric that the summary is about: the first of these that was recorded."""


def parent(metric: str) -> str:
    """'dead_units/h1' belongs to 'dead_units'."""
    return metric.partition("/")[0]


def label(metric: str) -> Label:
    """How to show a metric; 'dormant_units_sokar' is found as 'dormant_units'."""
    name, _, part = metric.partition("/")
    known = [k for k in LABELS if name == k or name.startswith(k + "_")]
    suffix = f" ({part})" if part else ""
    if not known:
        title = name.replace("_", " ")
        return Label(title[:1].upper() + title[1:] + suffix)
    found = LABELS[max(known, key=len)]
    variant = name[len(max(known, key=len)) :].strip("_").replace("_", " ")
    title = f"{found.title}, {variant}" if variant else found.title
    return found._replace(
        title=title + suffix, formula="" if variant else found.formula
    )


def axis_title(metric: str) -> str:
    """'Online accuracy (%)'."""
    found = label(metric)
    return f"{found.title} ({found.unit})" if found.unit else found.title


def score_metric(metrics: list[str]) -> str | None:
    """The metric the summary is about; an unknown suite's first one otherwise."""
    for name in (*SCORES, *(m for m in metrics if label(m).better == "higher")):
        if name in metrics:
            return name
    rest = [m for m in metrics if m != "diverged"]
    return rest[0] if rest else None
