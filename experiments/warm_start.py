"""Warm starts and noisy chunks: does a network that has trained before learn less well?

Protocols: `ash_adams`, half of CIFAR-10, then all of it (Ash and Adams, NeurIPS 2020);
`hare_tortoise`, 10 % with half of its labels wrong, then the other 90 %, and
`noisy_chunks`, ten chunks of ever cleaner labels (Lee et al., ICML 2024); `dash`, 50
chunks that stay (Shin et al., NeurIPS 2024). The number is the test accuracy after the
last task; `full_reset` starts anew with every task.

    python -m cl_bench.main --config=experiments/warm_start.py:STREAM,MODE \\
        --workdir=results/warm_start
    STREAM  ash_adams (the default), hare_tortoise, noisy_chunks, dash
    MODE    smoke   2,000 images, a few epochs, a small network: a minute or two
            full    the protocol with a ResNet-18, 5 seeds, a GPU

AdamW with step size and weight decay 1e-3, as Lee et al., for all but `dash`, which has
SGD at 1e-3 with momentum .9 and shrink and perturb with .3 and .01, as its paper (from a
secondary source); epochs are fixed
(Ash and Adams, and DASH, train until nearly all training images are right; see
`cl_bench/streams/warm_start.py`). Departures from Lee et al.'s code: gradients are not
clipped (there at .5), the step size is not warmed up (there over a tenth of the steps),
the optimiser goes on from task to task (there it is made anew), means and deviations of
the channels are those of the training images (there constants), and images are not flipped
or cropped (`noisy_chunks` does so there, padding with zeros; `--config.stream.augment=True`
pads with reflections). Not here: their shrink and perturb, which goes towards the first
weights, and the second setting of DASH (step size .1, weight decay 5e-4). Nothing of
`full` has been measured.
"""

from typing import Any

from cl_bench import config

STREAMS = ("ash_adams", "hare_tortoise", "noisy_chunks", "dash")
MODES = ("smoke", "full")
ADAMW = {"optimizer": "adamw", "step_size": 1e-3, "weight_decay": 1e-3}
SGD = {"optimizer": "momentum", "step_size": 1e-3, "momentum": 0.9, "weight_decay": 0.0}
DASH_SHRINK = {"keep": 0.3, "noise_std": 0.01}
ALL_OF_TEST = {"name": "test_accuracy", "minibatches": 100}


def get_config(arg: str = ""):
    """One of `STREAMS` in one of `MODES`."""
    first, _, second = arg.partition(",")
    preset = config.mode(first, STREAMS, "ash_adams")
    mode = config.mode(second, MODES, "smoke")
    stream: dict[str, Any] = {"name": "warm_start", "dataset": "cifar10"}
    stream["preset"] = preset
    network: dict[str, Any] = {"name": "resnet18"}
    if mode == "smoke":
        stream |= {"examples": 2_000, "epochs": 3, "batch_size": 32, "num_tasks": 2}
        network = {"name": "cnn", "channels": (8, 8), "kernels": (5, 5)}
        network["dense"] = (32,)
    return config.study(
        name=f"warm_start-{preset}-{mode}",
        benchmark=f"warm_start-{preset}-{mode}",
        stream=stream,
        network=network,
        method={"name": "backprop", **(SGD if preset == "dash" else ADAMW)},
        metrics=("online_accuracy", ALL_OF_TEST, "weight_norms"),
        score="test_accuracy",
        seeds=2 if mode == "smoke" else 5,
        execution={"lanes": "map" if mode == "smoke" else "auto"},
    )


def sweep(add, config):
    """The boundary methods, and the fresh network that they are measured against."""
    smoke = config.study.endswith("smoke")
    add("backprop")
    add("full_reset", method={"name": "full_reset"})
    add("head_reset", method={"name": "head_reset", "head": "redraw"})
    shrink = DASH_SHRINK if config.stream.preset == "dash" else {}
    add("boundary_shrink_perturb", method={"name": "boundary_shrink_perturb", **shrink})
    slow = {"name": "hare_tortoise", "period": 1 if smoke else 10}
    add("hare_tortoise", method=slow)
    add("hare_tortoise, slow copy", method={**slow, "evaluate": "tortoise"})
    add("dash", method={"name": "dash"})
    add("fire", method={"name": "fire"})
