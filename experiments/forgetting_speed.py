"""What a method that remembers adds to the time of plain Adam: a benchmark, and no test.

    python experiments/forgetting_speed.py                   # all arms
    python experiments/forgetting_speed.py --only=adam,ewc --steps=500

Protocol (van de Ven and Tolias 2019): Split MNIST, task-incremental, five tasks of
2,000 steps, batch 128, 2 x 400 ReLU, Adam at 1e-3; one lane on one core, the real runner
with the accuracy matrix. The arms take turns, task after task, so that a neighbour's
load falls on all of them; `ratio` is of the summed seconds. `Fisher` is EWC's share: its
seconds minus those with a Fisher of one minibatch.

Beside it: van de Ven's PyTorch code takes 226 s for EWC on two cores of another machine
(a time we were given, not one we measured).

Measured (jax 0.10.2, one core of an AMD EPYC virtual machine with other work on it):

    adam                       36.4 s
    ewc                        40.8 s   1.12, of which the exact Fisher of all examples,
                                        five times, 2.1 s
    ewc small Fisher           38.7 s   1.06
"""

import os
import time
from typing import Any

import jax
import numpy as np
from absl import app, flags

from cl_bench import components, execute, launch

_METHODS = flags.DEFINE_list("only", [], "Names of ARMS; all where empty.")
_STEPS = flags.DEFINE_integer("steps", 2_000, "Steps a task.")
_DATASET = flags.DEFINE_string("dataset", "mnist", "Any with ten classes of images.")

ADAM = {"optimizer": "adam", "step_size": 1e-3}
ARMS: dict[str, dict[str, Any]] = {
    "adam": {"name": "backprop"},
    "ewc": {"name": "ewc"},
    "ewc small Fisher": {"name": "ewc", "fisher_examples": 128},
    "online ewc": {"name": "ewc", "mode": "online"},
    "si": {"name": "si"},
    "mas": {"name": "mas"},
    "lwf": {"name": "lwf"},
    "experience_replay": {"name": "experience_replay", "capacity": 1_000},
    "der_plus_plus": {"name": "der_plus_plus", "capacity": 1_000},
    "agem": {"name": "agem", "memory_per_task": 200},
    "gem": {"name": "gem", "memory_per_task": 200},
    "lora": {"name": "lora"},
}


class Timed:
    """One arm, a task at a time."""

    def __init__(self, arm: str) -> None:
        made, method = parts_of(arm, _DATASET.value, _STEPS.value)
        hyper = made.method.Hyper(**{k: v for k, v in method.items() if k != "name"})
        stacked = jax.tree.map(lambda v: np.full(1, v, np.float32), hyper)
        lanes = execute.Lanes(np.zeros(1, np.uint32), stacked)
        self.run = launch.make_group_run(made)
        data = made.stream.load()
        self.program = execute.compile_group(self.run, data, lanes, "map", 1)
        self.carry = self.program.start(self.program.data, *self.program.lanes)

    def task_seconds(self, task: int) -> float:
        """Train task `task` and say how long it took."""
        program, began = self.program, time.perf_counter()
        self.carry, rows = program.chunk(
            program.data, *program.lanes, self.carry, np.int32(task), np.int32(1)
        )
        jax.block_until_ready((self.carry, rows))
        return time.perf_counter() - began


def parts_of(
    arm: str, dataset: str, steps: int
) -> tuple[components.Parts, dict[str, Any]]:
    """What one of `ARMS` is made of, and its method's settings."""
    stream = {"name": "split_classes", "dataset": dataset, "scenario": "task"}
    stream |= {"batch_size": 128, "steps_per_task": steps}
    network = {"name": "mlp", "widths": (400, 400), "init": "pytorch"}
    made = components.make(
        components.resolve("stream", stream),
        components.resolve("network", network),
        components.resolve_metrics(("accuracy_matrix",)),
        ARMS[arm]["name"],
    )
    return made, components.resolve("method", {**ADAM, **ARMS[arm]})


def table(argv: list[str]) -> None:
    """Print the rows."""
    del argv
    jax.config.update("jax_default_matmul_precision", "highest")
    os.environ.setdefault("NPROC", "1")  # as cl_bench.main: one thread a device
    arms = {"adam": Timed("adam")}
    arms |= {name: Timed(name) for name in _METHODS.value or ARMS if name != "adam"}
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for task in range(5):
        for name, arm in arms.items():
            seconds[name].append(arm.task_seconds(task))
            print(f"task {task + 1}: {name} {seconds[name][-1]:.2f} s", flush=True)
    totals = {name: sum(values) for name, values in seconds.items()}
    print(f"\n{'arm':30}{'seconds':>9}{'ratio':>7}   a task")
    for name, total in totals.items():
        each = " ".join(f"{value:.2f}" for value in seconds[name])
        print(f"{name:30}{total:9.1f}{total / totals['adam']:7.2f}   {each}")
    without = "ewc small Fisher"
    if {"ewc", without} <= totals.keys():
        print(f"Fisher: {totals['ewc'] - totals[without]:.1f} s")


if __name__ == "__main__":
    app.run(table)
