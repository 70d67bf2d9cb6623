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

Measured with jax 0.10.2 on two shared CPU cores, no run diverged. Mean squared error
with a 95 % bootstrap interval over seeds; "minus linear" is the paired difference.

`full,one`, 100 seeds, bins of 40,000 steps as in the paper (932 s for 2.1 G lane-steps
beside other work; one core alone does 10 M lane-steps/s):

                 tasks 1-4       tasks 147-150     tasks 297-300     there, minus linear
    ReLU         .64 [.57 .72]   1.13 [1.04 1.24]  1.26 [1.14 1.40]  +.42 [+.33 +.52]
    leaky ReLU   .63 [.57 .71]    .95 [ .90 1.01]   .93 [ .87 1.00]  +.09 [+.07 +.10]
    tanh         .36 [.33 .41]    .81 [ .75  .86]   .81 [ .76  .86]  -.03 [-.07 +.00]
    sigmoid      .58 [.54 .63]    .78 [ .72  .84]   .89 [ .82  .95]  +.04 [+.00 +.09]
    ELU          .56 [.51 .63]    .72 [ .67  .78]   .72 [ .66  .78]  -.12 [-.15 -.10]
    swish        .55 [.49 .61]   1.16 [1.03 1.29]  1.38 [1.26 1.50]  +.53 [+.45 +.63]
    linear       .87 [.81 .94]    .87 [ .82  .92]   .84 [ .78  .90]

    Dead ReLU units: 24 % at the start, 88 % at the end. Published, in words: the error
    of every activation rises, that of ReLU and tanh to the linear baseline, that of ELU
    least. The same here, and ReLU, swish and leaky ReLU end above that baseline.

`full,all`, 100 seeds, bins of 20,000 steps, first bin and mean over tasks 91-100 (264 s
for 2.1 G lane-steps on a quieter machine), beside the published curves (digitised;
their late value is that towards 1 M):

    step size        0.01                      0.003                     0.001
    ReLU    .64 1.34 [1.27 1.42]      .70 1.06 [1.00 1.13]      .84  .93 [.88 .98]
    paper   .62 1.2-1.35              .71 1.07-1.17             .84  .86-.91
    tanh    .41  .91 [ .87  .95]      .59  .99 [ .94 1.04]      .81  .89 [.85 .94]
    paper   .43  .90                  .60  .96                  .80  .84-.90
    linear  .86  .91 [ .88  .95]      .82  .87 [ .84  .91]      .89  .95 [.91 .99]
    paper   .87-.93 throughout (0.01)
    leaky   .63 1.28 [1.23 1.33]      .69 1.15 [1.09 1.22]      .84  .94 [.90 .99]
    sigmoid .70  .96 [ .91 1.00]      .90  .85 [ .81  .88]     1.19  .85 [.82 .89]
    ELU     .60  .79 [ .75  .83]      .71  .76 [ .72  .79]      .83  .77 [.74 .80]
    swish   .58 1.46 [1.39 1.54]      .70  .96 [ .91 1.01]      .85  .81 [.78 .85]

    Minimum over the bins at 0.001: ReLU .72, tanh .72 (published .72 and .69).

    The largest differences are at the end: ReLU at 0.001 .02 above the published range,
    tanh at 0.003 .03 above. Likely causes and their checks: (1) other problems were
    drawn: seeds 100-199 end at ReLU 1.24, 1.06, .88 and tanh .89, .92, .83; the
    published values lie between the two sets, or within .01; (2) the threshold: without
    the released code's half-integer all end 5 to 24 % higher (ReLU 1.41, 1.32, 1.01;
    linear 1.01) and fit worse; (3) the learner: stepped beside a plain NumPy one, its
    errors are the same (tests/bit_flipping_test.py).

`full,adam --config.seeds=30` (976 s), mean over tasks 271-300, at 0.01, 0.003 and
0.001, then the same seeds under SGD 0.01:

    ReLU     1.42 [1.24 1.60]   .94 [.81 1.11]   .93 [.82 1.07]   SGD 1.36 [1.19 1.54]
    leaky     .81 [ .73  .90]   .90 [.82  .99]   .98 [.90 1.07]       1.00 [ .92 1.10]
    tanh      .90 [ .81 1.00]   .83 [.76  .92]   .78 [.70  .87]        .86 [ .78  .95]
    sigmoid   .80 [ .73  .88]   .78 [.71  .87]   .70 [.63  .79]        .98 [ .88 1.10]
    ELU       .57 [ .50  .64]   .61 [.53  .69]   .68 [.61  .75]        .77 [ .68  .86]
    swish     .78 [ .69  .87]   .80 [.67  .96]   .69 [.61  .78]       1.44 [1.30 1.59]
    linear    .87 [ .80  .96]   .85 [.78  .94]   .88 [.80  .97]        .92 [ .84 1.01]

    The published text calls Adam usually worse than SGD. Here it is not, although most
    errors rise under it too. Likely causes and checks: (1) that text may mean the
    version of the released Adam configurations, `all` to 1 M steps: not worse there
    either (30 seeds: ReLU 1.46, .96, .93 against 1.45, 1.16, .95 of SGD; tanh .95, .88,
    .76 against .97, 1.03, .95; ELU .66, .66, .75 against .82, .79, .80); (2) it may
    compare the rise and not the level: at 0.01 the error of tanh rises by .59 under
    Adam, from .31, and by .47 under SGD, that of ReLU by .62 against .65: undecided;
    (3) another Adam: ours is checked against the published algorithm, and its
    coefficients (0.9, 0.999, 1e-8) are those of the released code.

`small,methods`, 10 seeds, ReLU, SGD 0.01, mean over tasks 91-100 (no published number
was at hand; settings are those of the released grids):

    backprop .84 [.71 .98]   linear .79 [.67 .91]
    L2, strength 1e-4 .70 [.57 .84], 1e-3 .63 [.53 .73], 1e-2 .63 [.49 .80]
    shrink and perturb, 1e-2 with noise 1e-4 .50 [.41 .60], 1e-3 .48 [.39 .56],
        1e-2 .55 [.47 .64]
    continual backprop, rate 1e-5 .57 [.47 .68], 1e-4 .44 [.37 .53], 1e-3 .46 [.40 .54],
        1e-2 .61 [.51 .72]; dead units at most 6 % from 1e-4 on (backprop 66 %)
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
    version = ""  # one bit flips; the other version is a benchmark of its own
    if arms == "all":
        version, stream["flips"] = "_all", "all"
    if arms == "all" or mode == "small":
        stream["num_tasks"] = 100
    if mode == "smoke":
        stream |= {"num_tasks": 3, "steps_per_task": 200}
    # No longer period is of this stream.
    stream["total_steps"] = stream["num_tasks"] * stream.get("steps_per_task", 10_000)
    return config.study(
        name=f"slowly_changing_regression-{mode}-{arms}",
        benchmark=f"slowly_changing_regression{version}-{mode}",
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
