"""What an arm is charged: its columns in every table of arms, in the page and as CSV."""

from cl_bench.report.summary import quantity

CHARGED = ("bytes_beyond_network", "charged_flops_per_step")
COLUMNS = [("Memory", "bytes beyond the network"), ("A step", "FLOPs, hooks spread")]
NOTE = (
    " Memory and FLOPs as in the table of costs: what is done at a task's start and end "
    "is spread over its steps, and within a step a condition counts as if it always "
    "took its dearest branch."
)


def cells(cost: dict[str, float | None]) -> list[str]:
    """A table's last cells, under `COLUMNS`; a dash for what was not recorded."""
    return [quantity(cost[name]) for name in CHARGED]


def csv_cells(cost: dict[str, float | None]) -> dict[str, float | None]:
    """The same as the last columns of a CSV."""
    return {name: cost[name] for name in CHARGED}


def largest(costs: list[dict[str, float | None]]) -> dict[str, float | None]:
    """Of several arms, or of one on several benchmarks: the largest number of each."""
    found: dict[str, float | None] = {}
    for name in CHARGED:
        known = [value for cost in costs if (value := cost[name]) is not None]
        found[name] = max(known, default=None)
    return found
