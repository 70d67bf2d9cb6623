"""What each arm remembers: the numbers of its accuracy matrix, over seeds."""

from collections.abc import Callable
from typing import NamedTuple

from cl_bench.report import anytime, references, transfer
from cl_bench.report.accuracies import Accuracies
from cl_bench.report.panels import Arm, Panel
from cl_bench.report.scores import NOTHING, interval_of
from cl_bench.stats import Floats, Interval


class Number(NamedTuple):
    """One number of a run; its key in `NUMBERS` is the function that computes it."""

    title: str
    note: str  # the formula, in small print; tasks counted from 1
    of: Callable[..., Floats]  # of `Accuracies` (and a reference): [runs], in [0, 1]
    in_page: bool = True  # a column of the page's table, not of the CSV alone
    signed: bool = False
    anytime: bool = False  # needs the accuracies while training goes on
    reference: str = ""  # needs another arm: one of `references.KINDS`


def _matrix(function: Callable[[Floats], Floats]) -> Callable[[Accuracies], Floats]:
    return lambda found: function(found.matrix)


def _anytime(
    function: Callable[[Floats, Floats], Floats],
) -> Callable[[Accuracies], Floats]:
    return lambda found: function(found.anytime, found.trained)


NUMBERS = {
    "average_accuracy": Number(
        "ACC", "mean<sub>j</sub> R<sub>Tj</sub>", _matrix(transfer.average_accuracy)
    ),
    "average_incremental_accuracy": Number(
        "Average incremental accuracy", "mean<sub>i</sub> ACC<sub>i</sub>",
        _matrix(transfer.average_incremental_accuracy), in_page=False,
    ),
    "weighted_average_accuracy": Number(
        "A", "mean<sub>i≥j</sub> R<sub>ij</sub>",
        _matrix(transfer.weighted_average_accuracy), in_page=False,
    ),
    "learning_accuracy": Number(
        "Learning accuracy", "mean<sub>j</sub> R<sub>jj</sub>",
        _matrix(transfer.learning_accuracy),
    ),
    "intransigence": Number(
        "Intransigence", "mean<sub>j</sub> a<sub>j</sub> − R<sub>jj</sub>",
        lambda found, a: transfer.intransigence(found.matrix, a), signed=True,
        reference="cumulative",
    ),
    "intransigence_all_tasks": Number(
        "Intransigence, all tasks", "mean<sub>j</sub> o<sub>j</sub> − R<sub>jj</sub>",
        lambda found, o: transfer.intransigence(found.matrix, o), signed=True,
        reference="joint",
    ),
    "transfer_of_learning": Number(
        "Transfer of learning", "mean<sub>j</sub> R<sub>jj</sub> − s<sub>j</sub>",
        lambda found, s: transfer.transfer_of_learning(found.matrix, s),
        signed=True, in_page=False, reference="single_task",
    ),
    "normalised_plasticity": Number(
        "Normalised plasticity", "mean<sub>j</sub> R<sub>jj</sub> / s<sub>j</sub>",
        lambda found, s: transfer.normalised_plasticity(found.matrix, s),
        reference="single_task",
    ),
    "backward_transfer": Number(
        "BWT", "mean<sub>j&lt;T</sub> R<sub>Tj</sub> − R<sub>jj</sub>",
        _matrix(transfer.backward_transfer), signed=True,
    ),
    "backward_transfer_all": Number(
        "BWT, all rows", "mean<sub>i&gt;j</sub> R<sub>ij</sub> − R<sub>jj</sub>",
        _matrix(transfer.backward_transfer_all), in_page=False, signed=True,
    ),
    "positive_backward_transfer": Number(
        "BWT⁺", "max(BWT of all rows, 0)",
        _matrix(transfer.positive_backward_transfer), in_page=False,
    ),
    "remembering": Number(
        "Remembering", "1 − |min(BWT of all rows, 0)|", _matrix(transfer.remembering),
        in_page=False,
    ),
    "forgetting_chaudhry": Number(
        "Forgetting, Chaudhry",
        "mean<sub>j&lt;T</sub> max<sub>j≤l&lt;T</sub> R<sub>lj</sub> − R<sub>Tj</sub>",
        _matrix(transfer.forgetting_chaudhry), signed=True,
    ),
    "forgetting_first_last": Number(
        "Forgetting, first − last",
        "mean<sub>j&lt;T</sub> R<sub>jj</sub> − R<sub>Tj</sub>",
        _matrix(transfer.forgetting_first_last), signed=True,
    ),
    "forgetting_max_all": Number(
        "Forgetting, max of all",
        "mean<sub>j&lt;T</sub> max<sub>j≤l≤T</sub> R<sub>lj</sub> − R<sub>Tj</sub>",
        _matrix(transfer.forgetting_max_all), signed=True,
    ),
    "forward_transfer": Number(
        "FWT", "mean<sub>j&gt;1</sub> R<sub>j−1,j</sub> − b<sub>j</sub>",
        lambda found: transfer.forward_transfer(found.matrix, found.initial),
        signed=True,
    ),
    "forward_transfer_without_baseline": Number(
        "FWT without b", "mean<sub>j&gt;1</sub> R<sub>j−1,j</sub>",
        _matrix(transfer.forward_transfer_without_baseline), in_page=False,
    ),
    "stability_plasticity": Number(
        "Stability–plasticity", "harmonic mean of LA and mean R<sub>Tj</sub> / max R<sub>lj</sub>",
        _matrix(transfer.stability_plasticity), in_page=False,
    ),
    "min_accuracy": Number(
        "min-ACC", "mean<sub>j&lt;T</sub> min after task j",
        _anytime(anytime.min_accuracy), anytime=True,
    ),
    "worst_case_accuracy": Number(
        "WC-ACC", "A<sub>T</sub>/T + (1 − 1/T) min-ACC",
        _anytime(anytime.worst_case_accuracy), anytime=True,
    ),
    "average_anytime_accuracy": Number(
        "AAA", "mean over all evaluations", _anytime(anytime.average_anytime_accuracy),
        anytime=True,
    ),
    "stability_gap": Number(
        "Stability gap", "A<sub>j</sub> before task i − min in task i",
        _anytime(anytime.stability_gap), signed=True, anytime=True,
    ),
    "windowed_forgetting": Number(
        "WF", "largest loss in 10 evaluations", _anytime(anytime.windowed_forgetting),
        in_page=False, signed=True, anytime=True,
    ),
    "windowed_plasticity": Number(
        "WP", "largest gain in 10 evaluations", _anytime(anytime.windowed_plasticity),
        in_page=False, signed=True, anytime=True,
    ),
}  # fmt: skip
FORWARD = ("forward_transfer", "forward_transfer_without_baseline")
CLASS_INCREMENTAL = ("class_incremental", "five_plus_one")  # streams of one scenario


def of(panel: Panel, arm: Arm) -> dict[str, Interval]:
    """Every number of `NUMBERS` in percent, mean and interval over runs.

    {} where the records have no accuracy matrix, NaN where a number is undefined or
    the panel has no arm that it needs.
    """
    if arm.accuracies is None:
        return {}
    found = {name: _interval(panel, arm, name) for name in NUMBERS}
    if scenario(arm) in ("class", "task"):
        found |= dict.fromkeys(FORWARD, NOTHING)
    return found


def _interval(panel: Panel, arm: Arm, name: str) -> Interval:
    number = NUMBERS[name]
    if not number.reference:
        return interval_of(100.0 * number.of(arm.accuracies))
    reference = references.of(number.reference, panel, arm)
    if reference is None:
        return NOTHING
    return interval_of(100.0 * number.of(arm.accuracies, reference.accuracy))


def scenario(arm: Arm) -> str:
    """'task', 'domain' or 'class' as its stream is configured, '' where unknown.

    Task-incremental with a single head is 'domain': its tasks share their outputs.
    """
    if arm.settings.get("stream.single_head"):
        return "domain"
    if arm.settings.get("stream.name") in CLASS_INCREMENTAL:
        return "class"
    return str(arm.settings.get("stream.scenario") or "")


def no_forward_transfer(arm: Arm) -> str:
    """Why this arm has no FWT, '' where it has one or no accuracy matrix."""
    found = arm.accuracies
    if found is None:
        return ""
    return transfer.no_forward_transfer(found.matrix, found.initial, scenario(arm))
