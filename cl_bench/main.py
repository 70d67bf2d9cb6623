"""The entry point: python -m cl_bench.main --config=experiments/x.py --workdir=DIR

In order: config and sweep -> runs -> groups -> compiled execution -> records -> report.
The same command resumes a stopped study. Ends with 0 when all is done, 1 after an
error, 130 when stopped by Ctrl-C and 143 by SIGTERM.
"""

import errno
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from cl_bench import canonical, command_line, config
from cl_bench.atomic import StoreError, read_json, write_json
from cl_bench.datasets._source import MissingDatasetError
from cl_bench.fields import ConfigError
from cl_bench.registry import UnknownNameError

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the study's results.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print what would be done, and stop.")
_REPORT = flags.DEFINE_bool("report", True, "Build DIR/report.html at the end.")
command_line.define_flags()
flags.adopt_module_key_flags(command_line)  # --help lists them too

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
USER_ERRORS = (ConfigError, UnknownNameError, StoreError, MissingDatasetError)


def main(argv: list[str], overrides: dict[str, Any]) -> None:
    """Run the study that the flags and the `--config.a.b=v` overrides describe."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown argument {argv[1]!r}.")
    if not (_WORKDIR.value or _DRY_RUN.value):
        raise app.UsageError("Give --workdir=DIR, or --dry_run.")
    experiment = config.load(flags.FLAGS.config)
    settings = config.settings(experiment.config, overrides)
    workdir = Path(_WORKDIR.value or "").expanduser()
    start_jax(settings["execution"], workdir)
    from cl_bench import launch, study  # after JAX has its settings

    runs = study.expand(
        experiment.config, experiment.sweep, flags.FLAGS.methods,
        flags.FLAGS.benchmarks, overrides,
    )  # fmt: skip
    if _DRY_RUN.value:
        text = study.dry_run_text(study.group(runs), launch.estimated_memory)
        print(text, end="")
        return
    notes = {
        "settings": settings,
        "overrides": overrides,
        "experiment": experiment.spec,
        "command_line": sys.argv,
    }
    try:
        run_study(workdir, runs, settings["execution"], notes, _REPORT.value)
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        raise StoreError(
            f"Cannot write {error.filename or workdir}: {error.strerror}. Free some "
            "space, then run the same command again."
        ) from error
    except launch.Stopped as stopped:
        print(
            f"Stopped and saved. The same command resumes {workdir}.", file=sys.stderr
        )
        sys.exit(128 + stopped.signal)


def start_jax(execution: dict[str, Any], workdir: Path) -> None:
    """Settings that JAX reads once, before its first array."""
    import jax

    # One host device a core: the lanes of a CPU study run side by side on them. A
    # resume takes as many as the study has, also where there are fewer cores now.
    devices = execution["devices"] or max(_cores(), _planned_devices(workdir))
    jax.config.update("jax_num_cpu_devices", devices)
    # XLA reads NPROC for its pool of threads, at least one a device. More of them share
    # out the small reductions of one step and lose by it (continual backprop at width
    # 100, one lane: 12,900 steps/s with two threads, 21,900 with one).
    os.environ.setdefault("NPROC", "1")
    # The singular value decompositions of the metrics run in SciPy's OpenBLAS, whose own
    # threads spin for a while after each, in the way of the lanes: with them two lanes
    # of permuted MNIST took 1.7 times as long on two cores. Read when SciPy is loaded.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    jax.config.update("jax_default_matmul_precision", execution["matmul_precision"])
    if (
        execution["compilation_cache"]
        and not jax.config.values["jax_compilation_cache_dir"]
    ):
        home = os.environ.get("CL_BENCH_CACHE", Path.home() / ".cache" / "cl_bench")
        jax.config.update("jax_compilation_cache_dir", str(Path(home) / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _planned_devices(workdir: Path) -> int:
    plans = (workdir / "groups").glob("*/plan.json")
    return max((read_json(path)["devices"] for path in plans), default=0)


def run_study(
    workdir: Path,
    runs: Sequence[Any],
    execution: dict[str, Any],
    notes: dict[str, Any],
    with_report: bool,
) -> None:
    """Run every group that is not done, then compact the records and report.

    A finished study is left as it is. `notes` is kept in config.json. Raises
    launch.Stopped where the user asks to stop, with everything saved.
    """
    from cl_bench import interrupts, provenance, records, store, study

    table = study.runs_table(runs)
    with store.open_study(workdir), interrupts.caught() as stopping:
        provenance.lock_config(workdir, identity(table, execution), **notes)
        renewed = record_runs(workdir, table)
        worked = run_groups(workdir, study.group(runs), execution, stopping)
        if worked or not records.is_current(workdir):
            records.compact(workdir)
        elif not with_report or (report_is_current(workdir) and not renewed):
            print(f"Nothing to do: {workdir} is finished.")
            return
        if with_report:
            from cl_bench import report

            if page := report.build([workdir]):
                print(f"Report: {page}")


def record_runs(workdir: Path, table: list[dict[str, Any]]) -> bool:
    """Writes runs.json; False where one is there that tells the report the same.

    What may change over a workdir's life is the metric that its runs are ranked by.
    """

    def told(rows):
        return [(row.get("score"), row.get("num_tasks")) for row in rows]

    path = workdir / "runs.json"
    if path.exists() and told(read_json(path)) == told(table):
        return False
    write_json(path, table)
    return True


def run_groups(
    workdir: Path,
    groups: Sequence[Any],
    execution: dict[str, Any],
    stopping: Callable[[], int],
) -> bool:
    """Run the groups that are not done; False where all were. Raises launch.Stopped."""
    from cl_bench import launch, provenance
    from cl_bench.progress import Progress

    waiting = [group for group in groups if not launch.is_done(group, workdir)]
    if not waiting:
        return False
    began = time.monotonic()
    provenance.record_start(workdir)
    try:
        for group in waiting:
            launch.run_study_group(group, workdir, execution, Progress(), stopping)
    except launch.Stopped:
        provenance.record_end(workdir, began)
        raise
    provenance.record_end(workdir, began)
    return True


def report_is_current(workdir: Path) -> bool:
    """Whether a report, or its tables where no page can be made, follows the records."""
    from cl_bench import report

    made = workdir / ("tables" if report.missing() else "report.html")
    return made.exists() and (
        made.stat().st_mtime_ns >= (workdir / "records.parquet").stat().st_mtime_ns
    )


def identity(
    table: Sequence[dict[str, Any]], execution: dict[str, Any]
) -> dict[str, Any]:
    """What a workdir holds: it can be resumed with the same arms and seeds only."""
    told = ("method", "hyper", "network_config", "metrics", "oracle")
    arms: dict[str, Any] = {}
    for row in table:
        label = f"{row['benchmark']}: {row['arm']}"
        stream = canonical.identity(row["stream_config"])
        own = {key: row[key] for key in told} | {"stream": stream, "seeds": []}
        arms.setdefault(label, own)["seeds"].append(row["seed"])
    precision = execution["matmul_precision"]  # of every product: another result
    return {"study": table[0]["study"], "matmul_precision": precision, "arms": arms}


def run() -> None:
    """The console entry: absl's, with the user's errors as messages, not tracebacks."""
    try:
        argv, overrides = command_line.split_overrides(sys.argv)
        app.run(lambda rest: main(rest, overrides), argv=argv)
    except USER_ERRORS as error:
        sys.exit(f"cl_bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    run()
