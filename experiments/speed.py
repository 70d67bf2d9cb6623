"""How many steps a second: one table of this machine's speed, a benchmark and no test.

    python experiments/speed.py                              # all of ARMS
    python experiments/speed.py --only=backprop,trac,parseval --lanes=1 --steps=2000
                                                             # any of ARMS and MORE
    python experiments/speed.py --widths=100 --lanes=1,64,1024,4096 --strategies=vmap
                                                             # for a GPU

Batch-1 online learning on 784 inputs, 3 hidden layers, 10 outputs: lane-steps/s of the
real runner (stream, method, online accuracy) for each method, width, number of lanes
and strategy, and the fraction of this machine's memory bandwidth that the smallest
possible traffic takes. Compare ratios within one run: absolute numbers move with
neighbours. `ratio` is of a step's processor time (of its wall time where the device is
not a CPU) to backprop's in the same setting, where that ran before. A row prints as soon
as it is measured; --json writes them all.

`passes` over the weights that a step needs at least: backprop reads them forward and
backward, reads and writes them in the update (4); continual backprop reads them once
more for the magnitudes (5). Above 100 % the weights live in a cache, not in memory.
"""

import itertools
import json
import os
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from cl_bench import components, execute, launch

_WIDTHS = flags.DEFINE_list("widths", ["100", "1000"], "Units of each hidden layer.")
_LANES = flags.DEFINE_list("lanes", ["1", "4", "16"], "Lanes in one program.")
_STRATEGIES = flags.DEFINE_list("strategies", ["map", "vmap"], "map, vmap or both.")
_DEVICES = flags.DEFINE_list("devices", ["1", "2"], "Local devices (CPU: cores).")
_CORES = flags.DEFINE_integer("cores", 0, "CPU: host devices; 0 is all cores.")
_METHODS = flags.DEFINE_list("only", [], "Of ARMS and MORE; all ARMS where empty.")
_STEPS = flags.DEFINE_integer("steps", 50_000, "Lane-steps of a chunk at width 100.")
_SECONDS = flags.DEFINE_float("seconds", 1.0, "Least time measured for one row.")
_JSON = flags.DEFINE_string("json", None, "Write the rows to this file too.")

ARMS: dict[str, dict[str, Any]] = {
    "backprop": {"name": "backprop"},
    "continual_backprop": {"name": "continual_backprop"},
    "continual_backprop rho=0": {"name": "continual_backprop", "replacement_rate": 0.0},
    "l2": {"name": "l2"},
    "shrink_perturb pooled": {"name": "shrink_perturb", "noise": "pooled"},
    "shrink_perturb exact": {"name": "shrink_perturb"},
    "redo": {"name": "redo", "statistics": "average"},
    "snr": {"name": "snr"},
    "upgd pooled": {"name": "upgd", "noise": "pooled"},
    "upgd exact": {"name": "upgd"},
}
MORE: dict[str, dict[str, Any]] = {
    "noise_injection pooled": {"name": "noise_injection", "noise": "pooled"},
    "l2_init": {"name": "l2_init"},
    "spectral": {"name": "spectral"},
    "weight_clipping": {"name": "weight_clipping"},
    "trac": {"name": "trac"},
    "grama every step": {"name": "grama", "statistics": "average", "period": 1},
    "parseval": {"name": "parseval"},
    "wasserstein": {"name": "wasserstein"},
}


def bandwidth(seconds: float = 0.5) -> float:
    """Bytes/s of a triad b = b + s c in place, over arrays far larger than a cache."""
    size = 32 * 2**20
    b, c = jnp.ones(size), jnp.full(size, 2.0)
    triad = jax.jit(lambda b, c: b + 0.5 * c, donate_argnums=0)
    best, began = 0.0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        at = time.perf_counter()
        b = jax.block_until_ready(triad(b, c))
        best = max(best, 3 * 4 * size / (time.perf_counter() - at))
    return best


def steps_per_second(
    arm: str, width: int, lanes: int, strategy: str, devices: int
) -> dict[str, float]:
    """One row: lane-steps/s, processor seconds a step (the best of several chunks each)
    and seconds of compilation."""
    guess = max(20, _STEPS.value // lanes * 100**2 // width**2)
    stream = {"name": "permuted", "dataset": "synthetic", "num_tasks": 10_000}
    options = {"size": 28, "train": 20_000, "test": 10, "noise": 2.0}
    section = components.resolve(
        "stream", stream | {"dataset_options": options, "steps_per_task": guess}
    )
    net = components.resolve("network", {"name": "mlp", "widths": (width,) * 3})
    metrics = components.resolve_metrics(("online_accuracy",))
    settings = (ARMS | MORE)[arm]
    method = components.resolve("method", settings)
    made = components.make(section, net, metrics, settings["name"])
    hyper = made.method.Hyper(**{k: v for k, v in method.items() if k != "name"})
    stacked = jax.tree.map(lambda v: np.full(lanes, v, np.float32), hyper)
    group = execute.Lanes(np.arange(lanes, dtype=np.uint32), stacked)
    run = launch.make_group_run(made)
    data = made.stream.load()
    program = execute.compile_group(run, data, group, strategy, devices)
    best, processor, spent, warm = 0.0, float("inf"), 0.0, False
    began = time.process_time()
    for chunk in execute.run_group(run, program, chunk_seconds=_SECONDS.value / 4):
        done, used = lanes * guess * chunk.count, time.process_time() - began
        if warm:
            best = max(best, done / chunk.seconds)
            processor = min(processor, used / done)
            spent += chunk.seconds
        warm, began = True, time.process_time()
        if spent > _SECONDS.value:
            break
    return {
        "lane_steps_per_second": best,
        "processor_seconds": processor,
        "compile_seconds": program.compile_seconds,
    }


def table(argv: list[str]) -> None:
    """Print the rows."""
    del argv
    jax.config.update("jax_num_cpu_devices", _CORES.value or os.cpu_count())
    jax.config.update("jax_default_matmul_precision", "highest")
    os.environ.setdefault("NPROC", "1")  # as cl_bench.main: one thread a device
    device = jax.local_devices()[0].device_kind
    stream = bandwidth()
    print(f"{device}, jax {jax.__version__}, triad {stream / 1e9:.1f} GB/s a device")
    print(f"{'method':26}{'width':>6}{'lanes':>6}{'devices':>8} strategy "
          f"{'lane-steps/s':>13}{'us/step':>9}{'ratio':>8}{'of bound':>9}"
          f"{'compile s':>10}")  # fmt: skip
    rows: list[dict[str, Any]] = []
    plain: dict[tuple[Any, ...], float] = {}
    on_cpu = jax.default_backend() == "cpu"
    grid = itertools.product(
        _METHODS.value or ARMS, map(int, _WIDTHS.value), map(int, _LANES.value),
        map(int, _DEVICES.value), _STRATEGIES.value,
    )  # fmt: skip
    for arm, width, lanes, devices, strategy in grid:
        used = min(devices, lanes)
        same = lanes == used and strategy == "vmap" and "map" in _STRATEGIES.value
        if devices > min(lanes, jax.local_device_count()) or same:
            continue  # one lane a device is the same program either way
        found = steps_per_second(arm, width, lanes, strategy, devices)
        rate = found["lane_steps_per_second"]
        step = found["processor_seconds"] if on_cpu else 1.0 / rate
        setting = width, lanes, devices, strategy
        if arm == "backprop":
            plain[setting] = step
        ratio = step / plain.get(setting, float("nan"))
        weights = 784 * width + 2 * width**2 + 10 * width
        passes = 5 if arm.startswith("continual") else 4
        bound = stream * used / (4 * passes * weights)
        rows.append(
            {"method": arm, "width": width, "lanes": lanes, "devices": used,
             "strategy": strategy, "ratio": ratio, "of_bound": rate / bound, **found}
        )  # fmt: skip
        print(f"{arm:26}{width:6}{lanes:6}{used:8} {strategy:8} {rate:13,.0f}"
              f"{1e6 / rate:9.2f}{ratio:8.2f}{rate / bound:9.1%}"
              f"{found['compile_seconds']:10.1f}", flush=True)  # fmt: skip
    if _JSON.value:
        with open(_JSON.value, "w") as file:
            json.dump({"device": device, "triad": stream, "rows": rows}, file, indent=1)


if __name__ == "__main__":
    app.run(table)
