"""Online Permuted MNIST: does a network keep learning, and what makes it?

Protocol (Dohare et al., Nature 632 (2024) 768-774 and their released code): 60,000
training images, pixels in [0, 1]; each task permutes the pixels and the order of the
images anew; one pass, batch size 1, no boundary signal, no head reset; accuracy is that
of the prediction before each update, averaged over a task; the correlates are measured
on the first 2,000 images of a task before any training on it. ReLU, Kaiming-uniform.

    python -m cl_bench.main --config=experiments/online_permuted_mnist.py:MODE,ARMS \\
        --workdir=results/permuted_mnist
    MODE  smoke   seconds: 3 tasks of 300 steps, 20 units a layer
          small   3 x 100 units, a laptop
          full    3 x 2000 units, 30 seeds, a GPU
    ARMS  main     backprop and continual backprop, 800 tasks (the default)
          methods  all methods of the paper, the oracles, and `backprop, ema input`: a
                   control, backprop behind an online standardisation of the inputs
                   (decay .99, ours), 800 tasks
          steps    backprop at three step sizes, 800 tasks
          adam     Adam at three step sizes, 800 tasks
          l2       L2 at three strengths, 800 tasks
          shrink   shrink and perturb at three levels of noise, 800 tasks
          widths   backprop at three widths (`full`: four), 150 tasks
          rates    backprop at three rates of change, equal numbers of examples (less
                   what is left of a task)
          cbp      continual backprop at three replacement rates, 800 tasks

Step sizes, strengths and noise are those of the released configurations, for 2000 units;
widths and replacement rates of `small` are ours. Departure: shrink and perturb reads its
noise from a table (`noise="pooled"`, see `pooled_noise.py`).

Measured, `small,main`, jax 0.10.2 on two CPU cores, online accuracy in %, seeds 0 and 1
(two seeds give no interval), beside the published curve of 100 units at step 0.003
(digitised from the paper's figure, +-0.2):

    backprop, task          1           75          150         400         800
    online accuracy     92.3 91.9   88.5 89.1   mean 87.1     mean 84.8   81.5 82.8
    published             92.2        88.8         < 88
    dead units, mean       0 %        30 %         38 %        45 %        63 %
    mean |w|              .060        .142         .172        .212        .233
    effective rank, %      54          22           19          16          10

    The peak is 93.2 in both seeds (tasks 3 and 4; published 93.3); the last 80 tasks
    have 83.4 and 83.0. Run again later, over 76 tasks, seed 1 is the same and seed 0 has
    89.1 on task 75 (older code or another processor: it is not known which).

    continual backprop  1           75          150         400         800
    online accuracy     92.3 92.0   93.0 93.1   92.5 92.9   92.9 92.8   92.8 92.6
    dead units, mean      0 %        0.5 %       1.0 %       0.2 %       0.5 %
    mean |w|              .060        .059        .061        .060        .061
    effective rank, %      54          48          46          44          44

    (rho 1e-4.) It never falls: the best single task has 93.6 and 93.5, the mean of both
    seeds peaks at 93.4, tasks 721 to 800 have 92.9 and 92.9. Dead units: 0.3 % over the
    last 80 tasks, at most 3.3 % at the start of any one task. The published curve is of
    2000 units (about 95 and flat).

    `small,methods`, more of its arms: tasks of seed 0, the last 80 of seeds 0 to 2 or of
    those there are:

    task                1     75    150   400   800    721-800        dead  rank  |w|
    shrink, perturb   92.2   91.6  91.0  91.6  91.4   91.5 91.3 91.5   14 %   30   .083
    l2                92.3   91.9  90.8  91.4  91.6   91.4 91.4 91.4   15 %   29   .080
    online norm       93.8   90.2  86.4  80.9  79.7   78.6 79.8        84 %    6   .208
    adam, 1e-4        92.6   88.6  86.1  79.3  77.7   77.0 76.4        56 %    8   .518
    dropout 0.1       89.8   82.7  80.7  78.2  74.2   76.1 76.6        21 %   37   .248
    backprop, ema     93.4   90.0  88.6  87.7  85.4   86.0             42 %   27   .185
    head reset        92.3   89.4  87.9  86.6  86.5   86.4             37 %   27   .222
    full reset        92.3   91.9  92.2  92.2  92.0   92.1            0.3 %   58   .060
    linear            88.6   85.1  84.5  84.9  84.8   84.8 84.8 84.8               .238

    (Dead units, effective rank in % and mean |w| are means over tasks 721 to 800 of seed
    0. Dropout's predictions are those of the pass that trains, with units dropped.) As
    published for 2000 units, shrink and perturb stays flat below continual backprop,
    online norm is above backprop at first (94.6 on task 2) and below it later, dropout
    below throughout. L2, published as falling slowly between shrink and perturb and
    backprop, loses 1.5 points until task 150 and is level with shrink and perturb; the
    weights of both stop growing, at .080 and .083. Adam, published as falling off the bottom of
    the axis (91 for 2000 units) early on, starts as backprop does and ends 6 points below
    it, with the largest weights of all. The control, backprop behind standardised
    inputs, ends 2.6 points above backprop with 42 % of its units dead: on this stream,
    with one image a step and a decay of .99, it does not do what the methods do.

    Sweeps, seed 0, the first 100 tasks (`--config.seeds=1
    --config.stream.num_tasks=100`): online accuracy over tasks 91-100 in %, dead units
    and mean |w| there:

    backprop step    .01   81.7  43 %  .281    .003  88.4  34 %  .152    .001  89.6  23 %  .101
    l2 strength      1e-3  93.4   5 %  .025    1e-4  91.6  15 %  .083    1e-5  88.2  30 %  .151
    shrink, noise    1e-4  90.5  11 %  .127    1e-5  91.2  16 %  .082    1e-6  91.2  17 %  .081
    cont. backprop   1e-5  92.7   0 %  .062    1e-4  92.9   0 %  .061    1e-3  92.7   0 %  .057

    So L2 at ten times the strength of the paper's main figure is the best of all, and
    over all 800 tasks it stays so (`l2` with 1e-3 alone, seeds 0 and 1): 92.1 91.8 on
    task 1, 93.6 93.4, 93.1 92.8, 93.1 93.1 and 93.8 93.2 on tasks 75, 150, 400 and 800,
    93.4 93.4 over tasks 721-800, with 4 % and 5 % dead units, effective rank 22 %, mean
    |w| .022: half a point above continual backprop, 1.3 above a fresh network.

    `small,rates`, seeds 0 and 1, backprop over 4.8 M examples: online accuracy over the
    first tenth of them and the last, dead units at the end:

    change every 10,000      84.8 84.8    74.9 75.3    33 % 27 %
    change every 100,000     94.3 94.3    91.5 91.5    24 % 17 %
    change every 1,000,000   98.5 98.4    98.1 98.2     0 %  0 %  (4 tasks: first and last)

    Published, 2000 units, first and last: every 10,000 88.6 to about 85, every 100,000
    95.9 to 92.9, every 1,000,000 99.2 to 98.8. The order is the published one, and so is
    the loss at the slower rates; every 10,000 ours lose 10 points, theirs under 4. It is
    the width: 300 units go from 87.3 to 82.4 (seed 0, 24 % dead), half of that loss.

    `small,widths`, seed 0, backprop: online accuracy on tasks 1, 75 and 150; dead units,
    effective rank in % and mean |w| before task 150:

    30 units     90.1  84.1  79.3    48 %  16  .214
    100 units    92.3  89.1  86.9    38 %  17  .171
    300 units    92.9  92.3  90.9    17 %  29  .114

    Published, task 1, peak and task 150: 100 units 92.2, 93.3 and below 88; 1,000 93.8,
    94.8 and 93.7; 10,000 94.7, 96.0 and 95.8. Step sizes, 2000 units, peak and task 100:
    .01 94.7 and 93.6, .003 95.2 and 94.7; .001 has its peak of 94.8 near task 50.

    Where L2 and Adam differ from the published curves, which are of 2000 units, likely
    causes and what was checked: the width (the narrower a network, the more it loses:
    above; 2000 units were not run), strengths and step sizes that were chosen at that
    width (ten times the L2 does better here; Adam's other step sizes were not run), and
    chance (over the last 80 tasks Adam's two seeds differ by .6, L2's by less than .1).
    Nothing was measured on a GPU.

MNIST has to be there (TFDS_DATA_DIR, or `python -m cl_bench.download mnist`).
"""

from typing import Any

from cl_bench import config

MODES = ("smoke", "small", "full")
ARMS = ("main", "methods", "steps", "adam", "l2", "shrink", "widths", "rates", "cbp")
SHRINK = {"name": "shrink_perturb", "shrink": 1e-4, "noise": "pooled"}
CONTROL = {"input_norm": "ema", "input_decay": 0.99}
EXAMPLES = {"smoke": 9_000, "small": 4_800_000, "full": 48_000_000}  # a `rates` run
WIDTHS: dict[str, tuple[int, ...]] = {
    "smoke": (10, 20),
    "small": (30, 100, 300),
    "full": (100, 1_000, 2_000, 10_000),
}
RHO = {"smoke": (1e-3, 1e-2), "small": (1e-5, 1e-4, 1e-3), "full": (1e-6, 1e-5, 1e-4)}


def get_config(arg: str = ""):
    """The benchmark in one of `MODES`, with one of `ARMS` (see `sweep`)."""
    first, _, second = arg.partition(",")
    mode = config.mode(first, MODES, "small")
    arms = config.mode(second, ARMS, "main")
    stream: dict[str, Any] = {"name": "permuted", "dataset": "mnist", "num_tasks": 800}
    if arms == "widths":
        stream["num_tasks"] = 150
    if mode == "smoke":
        stream |= {"num_tasks": 3, "steps_per_task": 300}
    width = {"smoke": 20, "small": 100, "full": 2_000}[mode]
    return config.study(
        name=f"permuted_mnist-{mode}-{arms}",
        benchmark=f"online_permuted_mnist-{mode}",
        stream=stream,
        network={"name": "mlp", "widths": (width,) * 3},
        method={"name": "backprop", "step_size": 0.003},
        metrics=("online_accuracy", "dead_units", "weight_magnitude", "effective_rank"),
        seeds={"smoke": 2, "small": 2, "full": 30}[mode],
        execution={"lanes": "auto" if mode == "full" else "map"},
    )


def sweep(add, config):
    """The arms that the study's name ends in; settings are the paper's."""
    _, mode, arms = config.study.split("-")
    if arms == "steps":
        add("backprop", method={"step_size": [0.01, 0.003, 0.001]})
    elif arms == "adam":
        add("adam", method={"optimizer": "adam", "step_size": [1e-4, 5e-5, 3e-5]})
    elif arms == "l2":
        add("l2", method={"name": "l2", "strength": [1e-3, 1e-4, 1e-5]})
    elif arms == "shrink":
        add("shrink_perturb", method={**SHRINK, "noise_std": [1e-4, 1e-5, 1e-6]})
    elif arms == "widths":
        for width in WIDTHS[mode]:
            add(f"backprop {width} units", network={"widths": (width,) * 3})
    elif arms == "rates":
        for period in (
            (100, 300, 3_000) if mode == "smoke" else (10_000, 100_000, 10**6)
        ):
            tasks = max(2, EXAMPLES[mode] // period)
            stream = {"steps_per_task": period, "num_tasks": tasks}
            add(f"change every {period:,}", stream=stream)
    elif arms == "cbp":
        method = {"name": "continual_backprop", "replacement_rate": list(RHO[mode])}
        add("continual_backprop", method=method)
    else:
        _methods(add, mode, arms)


def _methods(add, mode: str, arms: str) -> None:
    rho = {"smoke": 1e-2, "small": 1e-4, "full": 1e-6}[mode]
    add("backprop")
    if arms == "methods":
        add("adam", method={"optimizer": "adam", "step_size": 1e-4})
        add("l2", method={"name": "l2", "strength": 1e-4})
        add("shrink_perturb", method={**SHRINK, "noise_std": 1e-5})
        add("dropout", network={"dropout": 0.1})
        add("online norm", network={"norm": "online"})
        add("head_reset", method={"name": "head_reset"}, oracle=True)
        add("full_reset", method={"name": "full_reset"}, oracle=True)
        add("linear", network={"widths": ()})
        add("backprop, ema input", network=CONTROL)
    method = {"name": "continual_backprop", "replacement_rate": rho}
    add("continual_backprop", method=method)
