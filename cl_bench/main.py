"""The entry point: python -m cl_bench.main --config=experiments/x.py --workdir=DIR

The five arrows of the design, in order: config and sweep -> runs -> groups ->
compiled execution -> records -> report.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from absl import app, flags, logging

from cl_bench import command_line, config
from cl_bench.atomic import StoreError
from cl_bench.datasets._source import MissingDatasetError
from cl_bench.fields import ConfigError
from cl_bench.registry import UnknownNameError

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the study's results.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print what would be done, and stop.")
_REPORT = flags.DEFINE_bool("report", True, "Build DIR/report.html at the end.")

USER_ERRORS = (ConfigError, UnknownNameError, StoreError, MissingDatasetError)


def main(argv: list[str], overrides: dict[str, Any]) -> None:
    """Run the study that the flags and the `--config.a.b=v` overrides describe."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown argument {argv[1]!r}.")
    experiment = config.load(flags.FLAGS.config)
    settings = config.settings(experiment.config, overrides)
    start_jax(settings["execution"])
    from cl_bench import study  # after JAX has its settings

    runs = study.expand(
        experiment.config, experiment.sweep, flags.FLAGS.methods,
        flags.FLAGS.benchmarks, overrides,
    )  # fmt: skip
    groups = study.group(runs)
    if _DRY_RUN.value:
        from cl_bench import launch

        print(study.dry_run_text(groups, launch.estimated_memory), end="")
        return
    if not _WORKDIR.value:
        raise app.UsageError("Give --workdir=DIR, or --dry_run.")
    run_groups(Path(_WORKDIR.value), runs, groups, settings, overrides)


def start_jax(execution: dict[str, Any]) -> None:
    """Settings that JAX reads once, before its first array."""
    import jax

    # One host device a core: the lanes of a CPU study run side by side on them.
    jax.config.update("jax_num_cpu_devices", execution["devices"] or _cores())
    jax.config.update("jax_default_matmul_precision", execution["matmul_precision"])
    if execution["compilation_cache"] and not jax.config.jax_compilation_cache_dir:
        home = os.environ.get("CL_BENCH_CACHE", Path.home() / ".cache" / "cl_bench")
        jax.config.update("jax_compilation_cache_dir", str(Path(home) / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def run_groups(
    workdir: Path,
    runs: Any,
    groups: Any,
    settings: dict[str, Any],
    overrides: dict[str, Any],
) -> None:
    """Run every group that is not done, then compact the records and report."""
    from cl_bench import launch, provenance, records, store, study
    from cl_bench.atomic import write_json
    from cl_bench.progress import Progress

    table = study.runs_table(runs)
    with store.open_study(workdir), stop_signals() as stopping:
        began = time.monotonic()
        provenance.lock_config(
            workdir, identity(table), settings=settings, overrides=overrides,
            experiment=flags.FLAGS.config, command_line=sys.argv,
        )  # fmt: skip
        write_json(workdir / "runs.json", table)
        finished = all(
            (workdir / "groups" / g.key / "done.json").exists() for g in groups
        )
        if not finished:
            provenance.record_start(workdir)
        for group in groups:
            try:
                launch.run_study_group(
                    group, workdir, settings["execution"], Progress(), stopping
                )
            except launch.Stopped:
                sys.exit(f"Stopped and saved. The same command resumes {workdir}.")
        if finished and (workdir / "report.html").exists():
            logging.info("Nothing to do: %s is finished.", workdir)
            return
        records.compact(workdir)
        if not finished:
            provenance.record_end(workdir, began)
        if _REPORT.value:
            from cl_bench import report

            print(f"Report: {report.build([workdir])}")


def identity(table: list[dict[str, Any]]) -> dict[str, Any]:
    """What a workdir holds: it can be resumed with the same arms and seeds only."""
    told = ("method", "hyper", "stream_config", "network_config", "metrics", "oracle")
    arms: dict[str, Any] = {}
    for row in table:
        label = f"{row['benchmark']}: {row['arm']}"
        arm = arms.setdefault(label, {key: row[key] for key in told} | {"seeds": []})
        arm["seeds"].append(row["seed"])
    return arms


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM ask to stop after the chunk; a second one stops at once."""
    asked: list[int] = []

    def ask(number: int, frame: object) -> None:
        del frame
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        print("Stopping after this chunk; once more to stop at once.", file=sys.stderr)

    old = {n: signal.signal(n, ask) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def run() -> None:
    """The console entry: absl's, with the user's errors as messages, not tracebacks."""
    command_line.define_flags()
    try:
        argv, overrides = command_line.split_overrides(sys.argv)
        app.run(lambda rest: main(rest, overrides), argv=argv)
    except USER_ERRORS as error:
        sys.exit(f"cl_bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    run()
