"""The title, unit, direction and formula of each metric.

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
_START = (
    "measured before the task's first step, on its first examples (2,000 by default)"
)
_BATCH = (
    "with batch statistics, before the task's first step, on its first examples (1,000 by "
    "default; Dohare et al. 2024, incremental CIFAR-100)"
)
# Derived from the accuracy matrix and from `segment_test_accuracy`; then as any metric.
AVERAGE, BEST = "average_accuracy_so_far", "best_test_accuracy"
PAIRS = {
    "pollution": {
        "literal": "as printed, eq. 4",
        "variance_ratio": "variance ratio",
        "absolute_share": "absolute share",
        "causal": "accuracy lost without W of j (%)",
        "undefined": "share of undefined terms of eq. 3",
    },
    "similarity": {
        "declared": "as the stream is set",
        "fisher_overlap": "Fisher overlap",
        "gradient_cosine": "gradient cosine",
        "linear_cka": "linear CKA",
        "subspace_overlap": "subspace overlap",
        "probe_transfer": "probe transfer (%)",
    },
}
"""Metrics of task pairs: their kinds and titles, in the order of the page."""
PER_TASK = (
    "accuracy_on", "initial_accuracy_on", "anytime_accuracy_on",
    *(f"{family}_{kind}" for family, kinds in PAIRS.items() for kind in kinds),
)  # fmt: skip
"""Metrics with a column a task or pair, 'accuracy_on/3': matrices, not curves."""
LABELS = {
    "online_accuracy": Label(
        "Online accuracy",
        **_SCORE,
        formula="mean over the task of the score of the prediction made before each "
        "update; of classes: 1 where the arg max is the label, otherwise 0",
    ),
    "online_loss": Label(
        "Online loss",
        better="lower",
        formula="mean over the task of the loss before each update",
    ),
    "test_accuracy": Label(
        "Test accuracy",
        **_SCORE,
        formula="accuracy on held-out examples of the task, at the task's end",
    ),
    "test_loss": Label(
        "Test loss",
        better="lower",
        formula="mean loss on held-out examples of the task, at the task's end",
    ),
    "segment_test_accuracy": Label(
        "Test accuracy by segment",
        **_SCORE,
        formula="test accuracy at each segment's end (shown: the task's last)",
    ),
    BEST: Label(
        "Best test accuracy in the task",
        **_SCORE,
        formula="the largest test accuracy at the end of a segment of the task",
    ),
    AVERAGE: Label(
        "Average accuracy so far",
        **_SCORE,
        formula="ACC_i = (1/i) Σ_{j≤i} R_ij, test accuracy on the tasks learned so far",
    ),
    "sample_plasticity": Label(
        "Sample plasticity",
        **_SCORE,
        formula="clip(1 − L_after / max(L_before, 1e-8), 0, 1) of the loss of a step's "
        "own examples before and after it, mean over the task (Elsayed & Mahmood 2024)",
    ),
    "steps_to_threshold": Label(
        "Steps to threshold",
        better="lower",
        formula="steps from a task's start to the end of the first window of steps "
        "whose mean online score reaches a level; only of tasks that reached it",
    ),
    "threshold_reached": Label(
        "Threshold reached",
        **_SCORE,
        formula="1 where some window of the task reached that level, otherwise 0",
    ),
    "dead_units": Label(
        "Dead units",
        "%",
        100.0,
        "lower",
        formula=f"share of hidden units with Σ|h| = 0, {_START}",
    ),
    "dead_units_kumar": Label(
        "Dead units, Kumar",
        "%",
        100.0,
        "lower",
        formula="share of hidden neurons, each position of a feature map being one, "
        "that are 0 on all of a task's first examples (1,000 by default), before its first step",
    ),
    "zero_activation_fraction": Label(
        "Zero activations",
        "%",
        100.0,
        formula="share of hidden outputs equal to 0 on the current examples, mean over "
        "the task's steps (the dead units of Elsayed & Mahmood 2024)",
    ),
    "dormant_units_dohare": Label(
        "Dormant units, Dohare",
        "%",
        100.0,
        "lower",
        formula="share of hidden units with h ≠ 0 on fewer than 1 % of the examples "
        f"(Dohare et al. 2024), {_START}",
    ),
    "dormant_units_sokar": Label(
        "Dormant units, Sokar",
        "%",
        100.0,
        "lower",
        formula="share of hidden units with E|hᵢ| / meanₖ E|hₖ| ≤ τ "
        f"(Sokar et al. 2023), {_START}",
    ),
    "dormant_relus": Label(
        "Dormant units of all ReLUs",
        "%",
        100.0,
        "lower",
        formula="share of units with h ≠ 0 on fewer than 1 % of the examples and "
        f"positions, over the outputs of all ReLUs, {_BATCH}",
    ),
    "pooled_effective_rank": Label(
        "Effective rank, pooled features",
        better="higher",
        formula="exp(−Σ pᵢ ln pᵢ) with pᵢ = σᵢ / Σσ, σ the singular values of the last "
        f"hidden layer's mean over positions, {_BATCH}",
    ),
    "pooled_srank": Label(
        "Srank, pooled features",
        better="higher",
        formula="smallest k with Σᵢ≤ₖ σᵢ ≥ 0.99 Σ σᵢ, σ the singular values of the last "
        f"hidden layer's mean over positions, {_BATCH}",
    ),
    "effective_rank": Label(
        "Effective rank",
        "% of units",
        better="higher",
        formula="exp(−Σ pᵢ ln pᵢ) with pᵢ = σᵢ / Σσ, σ the singular values of a "
        "layer's activations; summed over layers, in percent of the hidden units "
        f"(Roy & Vetterli 2007), {_START}",
    ),
    "approximate_rank": Label(
        "Approximate rank",
        "% of units",
        better="higher",
        formula="smallest k with Σᵢ≤ₖ σᵢ² ≥ 0.99 Σ σᵢ², σ the singular values of a "
        f"layer's activations; summed over layers, in percent of the units, {_START}",
    ),
    "abs_approximate_rank": Label(
        "Approximate rank, absolute",
        "% of units",
        better="higher",
        formula="smallest k with Σᵢ≤ₖ σᵢ ≥ 0.99 Σ σᵢ, σ the singular values of a "
        f"layer's activations; summed over layers, in percent of the units, {_START}",
    ),
    "srank_kumar": Label(
        "Srank, Kumar",
        better="higher",
        formula="number of k with Σᵢ≤ₖ σᵢ < 0.99 Σ σᵢ (srank without its + 1), σ the "
        "singular values of a layer's activations on a task's first examples (1,000 by default), "
        "before its first step; mean over layers",
    ),
    "stable_rank": Label(
        "Stable rank",
        "% of units",
        better="higher",
        formula="Σ σᵢ² / σ₁², σ the singular values of a layer's activations; summed "
        f"over layers, in percent of the hidden units, {_START}. Not the stable rank of "
        "Dohare et al., which is the approximate rank, absolute",
    ),
    "weight_rank": Label(
        "Weight rank",
        "%",
        100.0,
        "higher",
        formula="sum over layers of the rank of the weight matrix / sum of its largest "
        "possible rank, at the task's start (Elsayed & Mahmood 2024)",
    ),
    "parameter_magnitude": Label(
        "Parameter magnitude",
        better="lower",
        formula="mean |θ| over all parameters, biases too, at the task's start",
    ),
    "weight_l1": Label(
        "Weight l1 norm",
        better="lower",
        formula="Σ|w| over all weight matrices, at the task's start",
    ),
    "weight_l2": Label(
        "Weight l2 norm",
        better="lower",
        formula="√(Σ w²) over all weight matrices, at the task's start",
    ),
    "update_norm": Label(
        "Update norm",
        formula="Euclidean norm of what the optimiser adds to all parameters in a step, "
        "mean over the task",
    ),
    "weight_magnitude": Label(
        "Weight magnitude",
        better="lower",
        formula="mean |w| over all weight matrices, biases left out, at the task's start",
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
