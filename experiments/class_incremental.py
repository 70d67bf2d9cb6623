"""Class-incremental images: does a residual network keep learning as classes arrive?

Protocol (Dohare et al., Nature 632 (2024) 768-774 and their released code): CIFAR-100,
5 more classes every 200 epochs, old ones stay; ResNet-18, SGD with momentum 0.9, step
size 0.1 times 0.2 at epochs 60, 120 and 160 of each increment, weight decay 5e-4, batch
90; flips, shifted crops and rotations of the training images; the network with the best
validation accuracy of an increment goes on into the next one. The number is the test
accuracy on the classes so far. (The paper plots the best of an increment's 200 epochs.
With `"segments": True` the metric is read at every segment, and the report has the best
of them; a segment is an epoch of the first increment, so later ones have more.)

    python -m cl_bench.main --config=experiments/class_incremental.py:MODE \\
        --workdir=results/class_incremental
    MODE  smoke   a minute or two: 3 increments of 5 classes, a network of width 4
          full    20 increments of CIFAR-100, width 64, 15 seeds, a GPU

Departs from the paper in the network that goes on: it is chosen among those at the ends
of segments, so once an epoch in the first increment only (paper: always), up to 20 times
an epoch in the last.

`residual_correlates` are the paper's: dormant units of all 17 ReLUs and ranks of the 512
pooled features, under the batch's statistics. It reads them on the stream's examples, the
paper on unaugmented ones of the new classes. `dormant_units` looks at the units that
methods act on: the inner layers of the blocks and the four streams.

`smoke` runs on `imagenet_resized/32x32`, not CIFAR-100, which may not be there; the
benchmark's name in its records says so. Published, all 100 classes (digitised from the paper's
figure): continual backprop 76.1, retrained 76.1, shrink and perturb 74.5, head reset
73.7, backprop 71.1 %. Nothing of `full` has been measured here.
"""

from typing import Any

from cl_bench import config

MODES = ("smoke", "full")
WEIGHT_DECAY = 5e-4


def get_config(arg: str = ""):
    """The benchmark in one of `MODES`."""
    mode = config.mode(arg, MODES, "smoke")
    stream: dict[str, Any] = {"name": "class_incremental", "dataset": "cifar100"}
    if mode == "smoke":
        small = {"num_tasks": 3, "epochs": 2, "train_per_class": 90}
        small |= {"fit_per_class": 10, "dataset": "imagenet_resized/32x32"}
        stream |= small
    return config.study(
        name=f"class_incremental-{mode}",
        benchmark=f"class_incremental-{stream['dataset']}-{mode}",
        stream=stream,
        network={"name": "resnet18", "width": 4 if mode == "smoke" else 64},
        method={"name": "backprop", "optimizer": "momentum", "step_size": 0.1},
        metrics=(
            "online_accuracy",
            {"name": "test_accuracy", "minibatches": 100},  # all of the test set
            "dormant_units",
            "residual_correlates",
            "weight_norms",
        ),
        score="test_accuracy",
        seeds=1 if mode == "smoke" else 15,
        execution={"lanes": "map" if mode == "smoke" else "auto"},
    )


def sweep(add, config):
    """The arms of the paper, all with the same weight decay; `base` has no other help."""
    del config
    noise = {"shrink": WEIGHT_DECAY, "noise_std": 1e-5}
    cbp = {"utility": "contribution", "replacement_rate": 1e-5, "count": "total"}
    cbp |= {"maturity_threshold": 1_000}
    decay = {"coupled_decay": True, "weight_decay": WEIGHT_DECAY}
    sgd = {"optimizer": "momentum", "momentum": 0.9, "step_size": 0.1}
    add("base", method={"name": "backprop", **sgd, **decay})
    add("shrink_perturb", method={"name": "shrink_perturb", **sgd, **noise})
    add(
        "continual_backprop",
        method={"name": "continual_backprop", **cbp, **sgd, **decay},
    )
    add("head_reset", method={"name": "head_reset", "head": "redraw", **sgd, **decay})
    add("full_reset", method={"name": "full_reset", **sgd, **decay})
