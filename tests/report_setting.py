"""What the tests of the report share: a made-up study whose numbers are known."""

import json
from pathlib import Path

import numpy as np

from cl_bench import parts
from cl_bench.atomic import write_json

TASKS, SEEDS = 40, 3
ARMS = {  # label -> method, settings, accuracy at a task (seed 0)
    "backprop": ("backprop", {"step_size": 0.01}, lambda t: 0.83 - 0.005 * t),
    "continual_backprop": (
        "continual_backprop",
        {"step_size": 0.01, "replacement_rate": 1e-4},
        lambda t: 0.84 + 0 * t,
    ),
    "l2 strength=0.001": (
        "l2", {"step_size": 0.01, "strength": 0.001}, lambda t: 0.82 - 0.003 * t,
    ),
    "l2 strength=0.01": (
        "l2", {"step_size": 0.01, "strength": 0.01}, lambda t: 0.81 - 0.002 * t,
    ),
    "l2 strength=0.1": (
        "l2", {"step_size": 0.01, "strength": 0.1}, lambda t: 0.80 - 0.001 * t,
    ),
    "full_reset": ("full_reset", {"step_size": 0.01}, lambda t: 0.81 + 0 * t),
}  # fmt: skip
DIVERGED = ("l2 strength=0.1", 2, 20)  # arm, seed, task from which it is NaN


def make_study(
    folder: Path, *, name="fake", benchmark="digits", seeds=SEEDS, tasks=TASKS,
    arms=ARMS, rename=None, shift=0.0, noise=0.0, only_tasks=None, streams=None,
) -> Path:  # fmt: skip
    """A workdir with two segments a task: start metrics on the first, scores last.

    Tasks have 100 steps; `seeds` is a count or the seeds themselves; `streams` are settings of an arm's own stream, by its label.
    """
    rng = np.random.default_rng(0)
    kinds = {"task": np.int32, "segment": np.int32}
    described, rows = [], []
    for label, (method, hyper, accuracy) in arms.items():
        shown = rename or label if label.startswith("l2 strength=0.001") else label
        stream = {"name": "permuted", "num_tasks": tasks} | (streams or {}).get(
            label, {}
        )
        steps = stream.get("steps_per_task", 100)
        for seed in range(seeds) if isinstance(seeds, int) else seeds:
            run_id = f"{benchmark}-{label}-{seed}"
            group = f"{benchmark}-{method}"
            described.append(
                {
                    "run_id": run_id, "group": group, "study": name,
                    "benchmark": benchmark, "arm": shown, "method": method,
                    "stream": "permuted", "network": "mlp", "seed": seed,
                    "oracle": method == "full_reset", "hyper": hyper,
                    "stream_config": stream,
                    "network_config": {"name": "mlp", "widths": [100, 100]},
                }
            )  # fmt: skip
            for task in range(only_tasks or stream["num_tasks"]):
                bad = (label, seed) == DIVERGED[:2] and task >= DIVERGED[2]
                score = accuracy(task) + shift + 0.01 * seed + noise * rng.normal()
                dead = 0.005 * task if method == "backprop" else 0.001 * seed
                row = {
                    "run_id": run_id, "study": name, "benchmark": benchmark,
                    "stream": "permuted", "network": "mlp", "method": method,
                    "arm": shown, "seed": seed, "task": task,
                    # An arg max over NaN is still a class: the accuracy looks fine.
                    "online_accuracy": 0.1 if bad else score,
                    "online_loss": np.nan if bad else 1 - score,
                    "diverged": float(bad), "weight_magnitude": np.nan,
                    "dead_units": np.nan, "dead_units/h1": np.nan,
                    "dead_units/h2": np.nan, "my_metric": 3.0 * seed + task,
                }  # fmt: skip
                start = {k: v for k, v in row.items() if isinstance(v, int | str)} | {
                    "segment": 0, "step": steps * task + steps // 2,
                    "online_accuracy": np.nan, "online_loss": np.nan,
                    "diverged": np.nan, "my_metric": np.nan,
                    "weight_magnitude": 0.05 + 0.001 * task,
                    "dead_units": dead, "dead_units/h1": dead, "dead_units/h2": dead / 2,
                }  # fmt: skip
                rows += [start, row | {"segment": 1, "step": steps * task + steps}]
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "runs.json", described)
    write_json(folder / "config.json", {"study": name, "seeds": seeds})
    write_json(
        folder / "provenance.json",
        {
            "versions": {"jax": "0.10.2"}, "device": {"kind": "cpu", "cores": 2},
            "git": {"commit": "abc123", "dirty": False},
            "command_line": ["main", "--config=a b.py"], "wall_seconds": 61.0,
        },
    )  # fmt: skip
    for group in dict.fromkeys(run["group"] for run in described):
        own = {run["run_id"] for run in described if run["group"] == group}
        part = [row for row in rows if row["run_id"] in own]
        columns = {
            key: np.array([row[key] for row in part], kinds.get(key)) for key in part[0]
        }
        (folder / "groups" / group).mkdir(parents=True)
        parts.write_part(folder / "groups" / group, 0, columns, 0, 2 * tasks)
        write_json(
            folder / "groups" / group / "group.json",
            {
                "lanes": len(own), "lane_width": 3, "strategy": "map",
                "device": "cpu", "compile_seconds": 2.5, "wall_seconds": 30.0,
                "flops_per_step": 1.2e5, "bytes_per_step": 4e5, "parameters": 12_345,
                "learner_bytes": 98_765, "lane_steps_per_second": 51_200.0,
            },
        )  # fmt: skip
    return folder


def charge(folder: Path) -> None:
    """Adds what earlier versions did not record; l2's arms carry anchors."""
    for path in folder.glob("groups/*/group.json"):
        facts = json.loads(path.read_text())
        heavy = path.parent.name.endswith("l2")
        kinds = {"network": 49_380} | ({"anchors centre": 49_385} if heavy else {})
        write_json(
            path,
            facts | {
                "flops_per_task": 3e6 * heavy, "charged_flops_per_step": 1.2e5 + heavy,
                "loops_counted_once": int(heavy), "learner_bytes_by_kind": kinds,
                "bytes_beyond_network": 49_385 * heavy,
            },
        )  # fmt: skip
