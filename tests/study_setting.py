"""What the tests of a study's runs share: a small configuration and two sweeps."""

from typing import Any

from cl_bench import config


def small(**changes):
    sections: dict[str, Any] = {
        "name": "small",
        "stream": {"name": "permuted", "num_tasks": 2, "steps_per_task": 10},
        "network": {"name": "mlp", "widths": (5,)},
        "method": {"name": "backprop", "step_size": 0.02},
        "seeds": 2,
    }
    return config.study(**(sections | changes))


def methods_sweep(add, config):
    del config
    add("backprop")
    add("decayed", method={"name": "l2", "strength": 0.5})
    add("replacing", method={"name": "continual_backprop", "replacement_rate": 0.1})


def rates_sweep(add, config):
    for steps in (10, 20):
        change = {"steps_per_task": steps * config.stream.num_tasks}
        add(f"backprop {steps}", stream=change)
        add(f"l2 {steps}", stream=change, method={"name": "l2"})


def arms(runs):
    """The labels of the arms, each once."""
    return list(dict.fromkeys(run.arm for run in runs))


def hypers(runs, key):
    """A setting of every arm; None where the arm has none."""
    return [run.hyper.get(key) for run in runs if run.seed == 0]
