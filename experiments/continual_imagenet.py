"""Continual ImageNet: does a convolutional network keep learning pairs of classes?

Protocol (Dohare et al., Nature 632 (2024) 768-774 and their released code): each task
tells two classes apart, 600 training and 100 test images of each, 32 x 32 pixels; 250
epochs of batches of 100, reshuffled; the head is set to 0 when a task starts, for every
method; SGD with momentum 0.9; the number is the test accuracy after the last epoch.
`small` is the version of Kumar, Marklund and Van Roy (CoLLAs 2024): 10 epochs, inputs in
[-1, 1], two convolutions of 16 channels and two dense layers of 100, no head reset,
plain SGD at 0.1; `kumar.py:ci,sgd` has their other methods.

    python -m cl_bench.main --config=experiments/continual_imagenet.py:MODE,ARMS \\
        --workdir=results/continual_imagenet
    MODE  smoke   seconds: 3 tasks of 2 epochs
          small   500 tasks, a laptop
          full    2,000 tasks of 250 epochs (5,000: --config.stream.num_tasks=5000), a GPU
    ARMS  main    backprop, l2, shrink and perturb, continual backprop, and a linear
                  network (the default)
          steps   backprop at three step sizes
          l2      l2 at several strengths
          shrink  shrink and perturb at several levels of noise
          cbp     continual backprop at several replacement rates

Grids of `small` are Kumar et al.'s, at their best step size. Those of `full` are around
the settings of the released configurations, which they contain, at the step sizes that
the paper kept; the paper's own grids (its Extended Data Table 2) could not be read. At
most one unit a layer and step is replaced, so that in dense layers of 100 units a rate of
1e-1 does no more than one of 1e-2.

Departures: the set is `imagenet_resized/32x32` of TFDS (the authors' own 32 x 32 images
and their normalisation are not public): `full` standardises by one mean and deviation.
`small` and `smoke` have 500 training and 50 test images a class, as the set with 100 of
the 1,000 classes has, and so 100 steps a task (paper: 120); `full` has the paper's 600
and 100, and where a set has fewer: `--config.stream.train_per_class=500
--config.stream.test_per_class=50`, which the records say. Test images come from the
set's own test part where that has enough (paper: the last 100 of each class). The
classes are shuffled anew on each sweep through them.

Published for `full` (digitised from the paper's figures): backprop at 0.01 has 89.3 % on
task 1, 84.3 over tasks 1-50, 83.0 near task 400 and 74.0 near 1,950; over 5,000 tasks L2
goes from 85.2 to 89.2, shrink and perturb from 84.3 to 89.2, continual backprop from 84.5
to 90.5; a linear model has 77.1, at a step size that is not known (here 0.01; in
`small` it has 71.5 and 67.2 of test images at 0.1, over tasks 1-50). `full` was not run.

Measured, `small,main`, jax 0.10.2 on two CPU cores (52 minutes a seed on both), in %, mean
of seeds 0, 1 and 2 with a bootstrap interval, which of three is from the lowest to the
highest (too narrow for one of 95 %); dead units, effective rank and mean |w| are means
over tasks 451 to 500 (|w| .030 at first); published: online accuracy over the last tenth
of the tasks with SGD, 5 seeds, of Farias and Jozefiak (ICLR 2025, table 1), from a
secondary source, +-2 and not verified:

    online, tasks      1-50             451-500      published  all              dead rank |w|
    backprop       81.6 [80.3 82.9]  81.0 [79.5 82.6]   78   82.4 [82.0 82.7]   7.0  41  .091
    l2             80.6 [78.8 82.7]  86.2 [85.9 86.6]   83   85.9 [85.4 86.2]   5.2  34  .034
    shrink+perturb 81.0 [79.7 82.7]  87.1 [86.2 88.1]   85   85.7 [85.4 86.1]   4.5  33  .034
    cont. backprop 81.0 [79.8 82.7]  89.9 [89.3 91.1]   84   87.5 [86.9 87.9]   0.1  67  .054
    linear         74.1 [73.6 74.8]  74.5 [74.0 75.3]        74.3 [74.2 74.5]            .012

    test, tasks        1-50             451-500      gain, paired
    backprop       81.6 [80.6 82.9]  79.9 [76.9 81.7]  -1.7 [-4.2 +0.4]
    l2             80.7 [79.6 82.6]  82.9 [82.6 83.3]  +2.1 [+0.0 +3.3]
    shrink+perturb 81.3 [79.9 82.4]  83.2 [82.9 83.3]  +1.8 [+0.6 +3.4]
    cont. backprop 81.1 [79.2 82.6]  82.1 [80.1 83.4]  +1.1 [-2.5 +4.3]
    linear         74.6 [73.8 76.4]  75.1 [74.5 75.8]  +0.4 [-1.9 +2.0]

    Online, backprop is best over tasks 51-100 (84.3) and falls from there; L2 stays at 85
    to 88, shrink and perturb and continual backprop keep rising, and the order is that of
    the papers. But the online accuracy is counted over ten epochs of the training images:
    on test images all three methods end above backprop, and of continual backprop,
    far ahead online, no gain can be told.

    Ours are 2 to 6 points above the published. Likely causes, and what was checked:
    1. Classes come back. The set has 100 of the 1,000 classes, so a class comes in every
       50 tasks, with the same images; the paper's 500 pairs never repeat one. While all
       is new (tasks 1-50) the four methods' means are within a point; continual backprop
       goes to 86.3 and 88.2 in the next two sweeps, with about a point more on test
       images: it is quicker at images that it has seen.
    2. The number of images. With 12 epochs, which are the paper's 1,200 steps a task,
       backprop has 85.2 and 81.7 online over tasks 1-50 (seeds 0 and 1), 1.4 to 2.3
       points more, and on test images 81.2 and 80.4, less than with 10.
    3. The step size. At .01 backprop has 61.9 and 56.8 over tasks 1-50, so that .1, the
       best of Kumar et al., is right here too; theirs is not known.

Sweeps of `small`, seed 0, the first 100 tasks (`--config.seeds=1
--config.stream.num_tasks=100`), in %: online accuracy over tasks 1-50 and 51-100, test
accuracy over tasks 51-100; dead units and mean |w| over tasks 51-100:

                              1-50  51-100  test  dead  |w|
    backprop, step      .1    82.9   84.9   82.1    5  .049
                        .01   61.9   70.0   75.6    7  .031
                        .001  50.0   51.9   53.4   11  .030
    l2, strength        1e-2  77.1   76.4   80.3    8  .004
                        1e-3  82.7   86.4   82.5    5  .033
                        1e-4  82.8   84.6   81.3    4  .047
                        1e-5  82.2   83.4   80.4    3  .049
    continual backprop  1e-1  49.8   49.1   51.4   16  .012
                        1e-2  49.9   48.9   50.9    3  .016
                        1e-3  82.7   85.8   81.8    0  .033
                        1e-4  83.4   87.3   81.2    1  .043
                        1e-5  82.6   83.6   82.4    5  .047
                        1e-6  82.9   84.9   82.1    5  .049

    shrink and perturb, over tasks 51-100, online and test accuracy, mean |w| at 1e-3:
    noise               1e-2         1e-3         1e-4         1e-5
    shrink 1e-3      77.1  79.6   77.7  80.2   75.7  79.4   77.8  79.7   .005
           1e-4      84.4  80.5   85.0  82.3   85.3  82.5   85.5  81.6   .030
           1e-5      86.2  81.7   86.1  82.0   85.6  82.3   84.7  82.2   .048

    The best of L2 (1e-3) is that of Kumar et al.; their shrink of 1e-4 with noise of
    1e-4 is within a point of the best here (one seed: no more can be told). Of continual
    backprop 1e-4 is ahead of their 1e-3 in these tasks; from 1e-2 on every unit is
    replaced as soon as it may be, and nothing is learned; at 1e-6 no unit was replaced.
    On test images no setting gains more than half a point on backprop's 82.1.
"""

from typing import Any

from cl_bench import config

MODES = ("smoke", "small", "full")
ARMS = ("main", "steps", "l2", "shrink", "cbp")


def get_config(arg: str = ""):
    """The benchmark in one of `MODES`, with one of `ARMS`."""
    first, _, second = arg.partition(",")
    mode = config.mode(first, MODES, "small")
    arms = config.mode(second, ARMS, "main")
    kumar = mode != "full"
    return config.study(
        name=f"continual_imagenet-{mode}-{arms}",
        benchmark=f"continual_imagenet-{mode}",
        stream=_stream(mode),
        network=_network(kumar),
        method={"name": "backprop", **_plain(kumar)},
        metrics=(
            "online_accuracy",
            "test_accuracy",
            "dead_units",
            "weight_magnitude",
            "effective_rank",
        ),
        score="online_accuracy" if mode == "small" else "test_accuracy",
        seeds={"smoke": 1, "small": 2, "full": 30}[mode],
        execution={"lanes": "auto" if mode == "full" else "map"},
    )


def _stream(mode: str) -> dict[str, Any]:
    stream = {"name": "class_pairs", "dataset": "imagenet_resized/32x32"}
    if mode == "full":
        images = {"train_per_class": 600, "test_per_class": 100}
        return {**stream, **images, "num_tasks": 2_000, "epochs": 250}
    images = {"train_per_class": 500, "test_per_class": 50}
    tasks, epochs = {"small": (500, 10), "smoke": (3, 2)}[mode]
    size = {"num_tasks": tasks, "epochs": epochs, "reset_head": False}
    return {**stream, **images, **size, "scale": "minus_one_one"}


def _network(kumar: bool) -> dict[str, Any]:
    if not kumar:
        return {"name": "cnn"}
    conv = {"channels": (16, 16), "kernels": (5, 5), "dense": (100, 100)}
    return {"name": "cnn", **conv, "init": "pytorch"}


def _plain(kumar: bool) -> dict[str, Any]:
    return (
        {"step_size": 0.1}
        if kumar
        else {"step_size": 0.01, "optimizer": "momentum", "momentum": 0.9}
    )


def sweep(add, config):
    """The arms that the study's name ends in."""
    _, mode, arms = config.study.split("-")
    kumar = mode != "full"
    base = _plain(kumar)
    if arms == "main":
        _main(add, kumar, base)
    elif arms == "steps":
        steps = [0.1, 0.01, 0.001] if kumar else [0.01, 0.001, 0.0001]
        add("backprop", method={**base, "step_size": steps})
    elif arms == "l2":
        values = [1e-2, 1e-3, 1e-4, 1e-5] if kumar else [3e-5, 3e-6, 3e-7]
        grid = {"step_size": base["step_size"] if kumar else 0.03, "strength": values}
        add("l2", method={"name": "l2", **base, **grid})
    elif arms == "shrink":
        add(
            "shrink_perturb", method={"name": "shrink_perturb", **base, **_noise(kumar)}
        )
    else:
        rates = [10.0**-k for k in range(1, 7)] if kumar else [3e-3, 3e-4, 3e-5]
        steps = base["step_size"] if kumar else [0.03, 0.01]
        grid = {"step_size": steps, "replacement_rate": rates, "count": "total"}
        add("continual_backprop", method={"name": "continual_backprop", **base, **grid})


def _noise(kumar: bool) -> dict[str, Any]:
    if kumar:
        noise = {"shrink": [1e-3, 1e-4, 1e-5], "noise_std": [1e-2, 1e-3, 1e-4, 1e-5]}
        return {**noise, "variant": "kumar"}
    return {"step_size": [0.03, 0.01], "shrink": 1e-5, "noise_std": [1e-4, 1e-5, 1e-6]}


def _main(add, kumar: bool, base: dict[str, Any]) -> None:
    """Best settings: Kumar et al. table 4 (SGD), or the configs of Dohare et al."""
    add("backprop", method=base)
    l2 = {"strength": 1e-3} if kumar else {"strength": 3e-6, "step_size": 0.03}
    add("l2", method={"name": "l2", **base, **l2})
    shrink = {"shrink": 1e-4, "noise_std": 1e-4, "variant": "kumar"}
    if not kumar:
        shrink = {"shrink": 1e-5, "noise_std": 1e-5}
    add("shrink_perturb", method={"name": "shrink_perturb", **base, **shrink})
    cbp = {"replacement_rate": 1e-3 if kumar else 3e-4, "count": "total"}
    add("continual_backprop", method={"name": "continual_backprop", **base, **cbp})
    linear = {"name": "mlp", "widths": (), "init": "pytorch"}
    add("linear", method={**base, "step_size": 0.01}, network=linear)
