"""python -m cl_bench.report --workdir=DIR [DIR ...] [--output=DIR] [--score=METRIC]"""

import sys

from absl import app, flags

from cl_bench import report
from cl_bench.atomic import StoreError

_WORKDIR = flags.DEFINE_multi_string(
    "workdir", [], "Folder of a study; give several to join them in one report."
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "Folder of the report. Default: the workdir, if it is one."
)

_FIRST_TASKS = flags.DEFINE_integer(
    "first_tasks",
    report.FIRST_TASKS,
    "Tasks at the start that the plasticity loss is counted from.",
    lower_bound=1,
)
_SCORE = flags.DEFINE_string(
    "score", None, "Metric to rank by. Default: the study's own, or its accuracy."
)


def main(argv: list[str]) -> int:
    """Builds the report; 1 where it could not be, with the reason."""
    workdirs = [*_WORKDIR.value, *argv[1:]]
    if not workdirs:
        print("Give at least one --workdir=DIR.", file=sys.stderr)
        return 1
    if len(workdirs) > 1 and not _OUTPUT.value:
        print(
            "Give --output=DIR: the joined report would replace that of "
            f"{workdirs[0]}.", file=sys.stderr,
        )  # fmt: skip
        return 1
    try:
        page = report.build(
            workdirs, _OUTPUT.value,
            first_tasks=_FIRST_TASKS.value, score=_SCORE.value,
        )  # fmt: skip
    except StoreError as error:
        print(error, file=sys.stderr)
        return 1
    if page is None:
        lacking = ", ".join(report.missing())
        print(
            f"Only the tables were written: {lacking} not installed. "
            f"Install with: {report.INSTALL}",
            file=sys.stderr,
        )
        return 1
    print(page)
    return 0


def run() -> None:
    """Console entry point."""
    app.run(main)


if __name__ == "__main__":
    run()
