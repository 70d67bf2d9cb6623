"""Slowly-Changing Regression: does a small network keep tracking, whatever its units?

Protocol (Dohare et al. 2023, arXiv 2306.13812, and their released code): inputs of 20
bits, 15 of which stay the same for 10,000 steps; targets from a fixed network of 100
linear threshold units; a learner 20-5-1 with batch size 1 and no boundary signal;
squared error of the prediction before each update, averaged over a task of 10,000
steps. The linear baseline is what a network without any learned feature reaches.

    python -m cl_bench.main --config=experiments/slowly_changing_regression.py:MODE,ARMS \\
        --workdir=results/slowly_changing_regression
    MODE  smoke   seconds: 3 tasks of 200 steps, 2 seeds
          small   10 seeds, 1 M steps
          full    100 seeds, 3 M steps (`all`: 1 M, as in the released configurations)
    ARMS  one      one bit flips a task, as in the paper's text: six activations and
                   linear, SGD 0.01 (the default)
          all      all 15 bits are redrawn, the released default: three step sizes
          adam     as `one`, three step sizes of Adam
          methods  as `one`: ReLU with L2, shrink and perturb, continual backprop
"""

from typing import Any

from cl_bench import config

MODES = ("smoke", "small", "full")
ARMS = ("one", "all", "adam", "methods")
ACTIVATIONS = ("relu", "leaky_relu", "tanh", "sigmoid", "elu", "swish")
STEP_SIZES = [0.01, 0.003, 0.001]


def get_config(arg: str = ""):
    """The benchmark in one of `MODES`, with one of `ARMS` (see `sweep`)."""
    first, _, second = arg.partition(",")
    mode = config.mode(first, MODES, "small")
    arms = config.mode(second, ARMS, "one")
    stream: dict[str, Any] = {"name": "bit_flipping", "num_tasks": 300}
    if arms == "all":
        stream["flips"] = "all"
    if arms == "all" or mode == "small":
        stream["num_tasks"] = 100
    if mode == "smoke":
        stream |= {"num_tasks": 3, "steps_per_task": 200}
    return config.study(
        name=f"slowly_changing_regression-{mode}-{arms}",
        benchmark=f"slowly_changing_regression-{mode}",
        stream=stream,
        network={"name": "mlp", "widths": (5,), "activation": "relu"},
        method={"name": "backprop", "step_size": 0.01},
        metrics=("online_loss", "dead_units", "weight_magnitude"),
        seeds={"smoke": 2, "small": 10, "full": 100}[mode],
        execution={"lanes": "vmap"},  # 2 to 4 times as fast as one lane after another
    )


def sweep(add, config):
    """The arms that the study's name ends in; grids are those of the released code."""
    arms = config.study.split("-")[-1]
    if arms == "methods":
        _methods(add)
        return
    method: dict[str, Any] = {}
    if arms != "one":
        method["step_size"] = STEP_SIZES
    if arms == "adam":
        method["optimizer"] = "adam"
    for name in ACTIVATIONS:
        add(name, network={"activation": name}, method=method)
    _linear(add, method)


def _linear(add, method: dict[str, Any]) -> None:
    """No hidden units, so none that could be dead."""
    metrics = ("online_loss", "weight_magnitude")
    add("linear", network={"widths": ()}, method=method, metrics=metrics)


def _methods(add) -> None:
    add("backprop")
    _linear(add, {})
    add("l2", method={"name": "l2", "strength": [1e-4, 1e-3, 1e-2]})
    noise = {"shrink": 1e-2, "noise_std": [1e-4, 1e-3, 1e-2]}
    add("shrink_perturb", method={"name": "shrink_perturb", **noise})
    replace = {
        "replacement_rate": [1e-5, 1e-4, 1e-3, 1e-2],
        "maturity_threshold": 10,  # the released script reads another key than the 100
        "accumulate": False,  # of its configuration, and draws Bernoulli counts
    }
    add("continual_backprop", method={"name": "continual_backprop", **replace})
