"""What the tests of the forgetting section share: a study whose matrix is known."""

from pathlib import Path

import numpy as np

from cl_bench import parts
from cl_bench.atomic import write_json
from cl_bench.report import panels, studies
from cl_bench.report.accuracies import Accuracies
from cl_bench.report.summary import summarise
from tests.transfer_test import A, B, R

EVIL = "ewc <script>alert(1)</script> & {{x}} which is a name far too long for a title"
STEP = 0.01  # every seed is so much better than the one before
NAN = np.nan


def make_study(
    folder: Path, *, arms=("backprop", EVIL), seeds=3, scenario="domain", anytime=True,
    matrix=R, initial=B, diverged=None, done=3, recorded=True, tasks=(0, 1, 2),
    better=None, training=None, also=None, stream=None,
) -> Path:  # fmt: skip
    """Two segments a task; the matrix stands on a task's last row, b on the first.

    `better` is arm -> what it has on top of the matrix, `training` arm -> its stream's;
    `also` further columns of task ends, `stream` further settings.
    """
    better, training = better or {}, training or {}
    runs, rows = [], []
    for arm in arms:
        for seed in range(seeds):
            run_id = f"{arm}-{seed}"
            runs.append(
                {
                    "run_id": run_id, "group": "g", "study": "fake", "benchmark": "b",
                    "arm": arm, "method": arm.split()[0], "stream": "split_classes",
                    "network": "mlp", "seed": seed, "hyper": {"step_size": 0.1},
                    "stream_config": {
                        "name": "split_classes", "num_tasks": 3, "scenario": scenario,
                        "training": training.get(arm, "sequential"),
                        **(stream or {}),
                    },
                }
            )  # fmt: skip
            for n in range(int(2 * done)):
                row = {
                    "run_id": run_id, "study": "fake", "benchmark": "b", "arm": arm,
                    "stream": "split_classes", "network": "mlp", "seed": seed,
                    "method": arm.split()[0], "task": n // 2, "segment": n % 2,
                    "step": 10 * (n + 1), "online_accuracy": NAN, "diverged": 0.0,
                }  # fmt: skip
                end = n % 2 == 1
                row["online_accuracy"] = 0.5 if end else NAN
                if diverged == (arm, seed, n // 2):
                    row["diverged"] = 1.0
                for j in tasks if recorded else ():
                    value = matrix[n // 2, j] + STEP * seed if end else NAN
                    value += better.get(arm, 0.0)
                    row[f"accuracy_on/{j}"] = value
                    row[f"initial_accuracy_on/{j}"] = initial[j] if n == 1 else NAN
                    if anytime:
                        row[f"anytime_accuracy_on/{j}"] = A[n, j] + STEP * seed
                for name, value in (also or {}).items():
                    row[name] = value + STEP * seed if end else NAN
                rows.append(row)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "runs.json", runs)
    write_json(folder / "config.json", {"study": "fake"})
    write_json(folder / "provenance.json", {"wall_seconds": 1.0})
    (folder / "groups" / "g").mkdir(parents=True)
    kinds = {"task": np.int32, "segment": np.int32}
    columns = {k: np.array([r[k] for r in rows], kinds.get(k)) for k in rows[0]}
    parts.write_part(folder / "groups" / "g", 0, columns, 0, int(2 * done))
    write_json(
        folder / "groups" / "g" / "group.json",
        {
            "lanes": len(runs),
            "flops_per_step": 1.2e5,
            "learner_bytes": 98_765,
            "bytes_beyond_network": 65_400,
            "charged_flops_per_step": 1.31e5,
        },
    )
    return folder


def panel_of(folder: Path):
    (panel,) = panels.join([studies.load(folder)])
    return panel


def accuracies_of(folder: Path, arm=0) -> Accuracies:
    found = panel_of(folder).arms[arm].accuracies
    assert found is not None
    return found


def numbers_of(folder: Path, arm="backprop"):
    rows = {row.arm.label: row.forgetting for row in summarise(panel_of(folder))}
    return rows[arm]


REFERENCES = {
    "arms": ("backprop", "offline", "full_reset"),
    "better": {"offline": 0.02, "full_reset": 0.04},
}
