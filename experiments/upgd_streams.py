"""UPGD's streams: does protecting useful weights keep a network learning?

Protocol (Elsayed and Mahmood, ICLR 2024, and their released code): batch size 1, inputs
in [-1, 1], PyTorch's default initialisation, no boundary signal; the number is the
accuracy of the prediction before each update. UPGD, L2 (its SGD with weight decay),
AdamW, noise injection and shrink and perturb have the paper's best settings. Not
published, and not tuned here: backprop, which has the step size of L2; continual
backprop, which is not in the paper; and shrink and perturb on label-permuted CIFAR-10,
which has the settings of EMNIST. `ema input` is a control of ours: plain SGD behind an
online standardisation of the inputs, which knows nothing of plasticity; `upgd, ema input`
is UPGD behind the same.

    python -m cl_bench.main --config=experiments/upgd_streams.py:STREAM,ARMS \\
        --workdir=results/upgd
    STREAM  ipm       input-permuted MNIST, a change every 5,000 of 1 M steps
            lp_cifar  label-permuted CIFAR-10, a change every 2,500 of 1 M steps
            lp_emnist label-permuted EMNIST (balanced), likewise; needs that data set
            smoke     ipm, 3 tasks of 200 steps
    ARMS    main      of ipm: backprop, UPGD, shrink and perturb, AdamW, continual
                      backprop, and the control (the default)
            all       the paper's other arms too, and UPGD behind the standardised
                      input; the other streams have one set of arms
            control   of ipm: the control at three step sizes and three decays, and with
                      the settings of the re-implementation below

Measured, `ipm,main --config.seeds=6`, jax 0.10.2, on two CPU cores, pooled noise;
accuracy in % over the whole stream with its 95 % bootstrap interval over seeds, over tasks
1 to 10 and the last 20, and dead units at the start of task 200:

                        seeds  whole stream          1-10   last 20   dead   elsewhere
    backprop              6    75.21 [75.11 75.31]   75.7    72.7     59 %
    upgd                  6    77.97 [77.95 77.99]   76.8    78.0      2 %     77.91
    shrink_perturb        6    78.15 [78.14 78.17]   75.4    78.4      7 %
    adamw                 6    72.01 [71.79 72.21]   77.6    68.9     68 %     71.90
    cont. bp., adamw      6    79.81 [79.78 79.86]   78.6    79.8     11 %     79.88
    backprop, ema input   6    82.32 [82.28 82.35]   80.1    81.8      8 %
    control, `ipm,control`:
    l2, ema input 0.99    6    86.20 [86.17 86.22]   86.0    86.2      0 %     86.17
    l2, ema input 0.999   6    84.03 [84.00 84.08]   84.3    84.0      2 %     83.99

    Elsewhere: whole stream, 10 seeds, s.e. .01 and less, by a re-implementation in JAX
    (SlopDotCash/asi, which calls itself of development grade). Its control is plain SGD
    with weight decay, both .01, which `l2` is too; that is what it has over the control
    of `ipm,main`, at backprop's .001. The control, which knows nothing of plasticity, is
    ahead of every method, and with that weight decay has hardly a dead unit.
    Not measured: the rest of `ipm,control`, the other arms and streams. Not here: the
    paper's label-permuted mini-ImageNet, whose inputs are features of a trained network.
"""

from typing import Any

from cl_bench import config
from cl_bench.fields import ConfigError

PERMUTED = ("ipm", "smoke")  # the others permute labels
STREAMS = ("ipm", "lp_cifar", "lp_emnist", "smoke")
ARMS = ("main", "all", "control")
POOLED = {"noise": "pooled"}


def get_config(arg: str = ""):
    """One of `STREAMS` with one of `ARMS`."""
    first, _, second = arg.partition(",")
    which, arms = config.mode(first, STREAMS, "ipm"), config.mode(second, ARMS, "main")
    if arms == "control" and which not in PERMUTED:
        raise ConfigError(f"control is of the stream ipm, not {which}")
    return config.study(
        name=f"upgd-{which}-{arms}",
        benchmark=f"upgd-{which}",
        stream=_stream(which),
        network=_network(which),
        method={"name": "backprop", "step_size": 1e-3},
        metrics=("online_accuracy", "dead_units", "weight_magnitude"),
        seeds=2 if which == "smoke" else 5,
        execution={"lanes": "map"},
    )


def _stream(which: str) -> dict[str, Any]:
    if which in PERMUTED:
        size = {"ipm": (200, 5_000), "smoke": (3, 200)}[which]
        name, dataset = {"name": "permuted"}, "mnist"
    else:
        size, name = (400, 2_500), {"name": "label_permuted"}
        name |= {"flatten": which == "lp_emnist"}
        dataset = {"lp_cifar": "cifar10", "lp_emnist": "emnist/balanced"}[which]
    period = {"num_tasks": size[0], "steps_per_task": size[1]}
    period["total_steps"] = size[0] * size[1]  # no longer period is of this stream
    return {**name, "dataset": dataset, "scale": "minus_one_one", **period}


def _network(which: str) -> dict[str, Any]:
    if which != "lp_cifar":
        return {"name": "mlp", "widths": (300, 150), "init": "pytorch"}
    # The released network has no activation between its convolutions.
    conv = {"channels": (6, 16), "kernels": (5, 5), "conv_activation": "linear"}
    return {"name": "cnn", **conv, "dense": (120, 84), "init": "pytorch"}


def sweep(add, config):
    """The arms at the settings that the header tells of, for the stream."""
    _, which, arms = config.study.split("-")
    if which in PERMUTED:
        if arms == "control":
            _controls(add)
            return
        _input_permuted(add)
        if arms == "all":
            _input_permuted_more(add)
    else:
        _label_permuted(add, which)


def _upgd(**hyper) -> dict[str, Any]:
    return {"name": "upgd", "noise_std": 0.1, "shrink": 0.01, **POOLED, **hyper}


NOISE = {"noise_std": 0.1, **POOLED, "step_size": 1e-3}
ADAMW = {"optimizer": "adamw", "step_size": 1e-4, "beta1": 0.0, "beta2": 0.99}
CBP = {"name": "continual_backprop", "replacement_rate": 1e-4}
CONTROL = {"input_norm": "ema", "input_decay": 0.99}


def _input_permuted(add) -> None:
    add("backprop", method={"step_size": 1e-3})
    add("upgd", method=_upgd(step_size=0.01, beta_utility=0.9999))
    shrink = {"name": "shrink_perturb", "variant": "upgd", "shrink": 0.01}
    add("shrink_perturb", method={**shrink, **NOISE})
    add("adamw", method=ADAMW)
    add("continual_backprop, adamw", method={**CBP, **ADAMW})
    add("backprop, ema input", method={"step_size": 1e-3}, network=CONTROL)


def _input_permuted_more(add) -> None:
    plain = _upgd(step_size=1e-3, beta_utility=0.9, protect=False)
    add("upgd, not protecting", method=plain)
    add("noise_injection", method={"name": "noise_injection", **NOISE})
    add("l2", method={"name": "l2", "strength": 1e-3, "step_size": 1e-3})
    add("continual_backprop", method={**CBP, "step_size": 1e-3})
    add("upgd, ema input", method=_upgd(step_size=0.01), network=CONTROL)


def _controls(add) -> None:
    for decay in (0.9, 0.99, 0.999):
        network = {**CONTROL, "input_decay": decay}
        method = {"step_size": [1e-3, 3e-3, 1e-2]}
        add(f"backprop, ema input {decay}", method=method, network=network)
        if decay > 0.9:  # as in SlopDotCash/asi, whose control decays its weights
            l2 = {"name": "l2", "strength": 0.01, "step_size": 0.01}
            add(f"l2, ema input {decay}", method=l2, network=network)


def _label_permuted(add, which: str) -> None:
    cifar = which == "lp_cifar"
    upgd = {"step_size": 0.01, "beta_utility": 0.999 if cifar else 0.9, **POOLED}
    upgd |= {"noise_std": 0.0, "shrink": 1e-4} if cifar else {
        "noise_std": 1e-3, "shrink": 0.0,
    }  # fmt: skip
    adamw = {"optimizer": "adamw", "beta1": 0.0, "beta2": 0.9999}
    adamw |= {"step_size": 1e-3, "weight_decay": 0.01} if cifar else {
        "step_size": 1e-4, "weight_decay": 0.1,
    }  # fmt: skip
    add("backprop", method={"step_size": 0.01})
    add("upgd", method={"name": "upgd", **upgd})
    strength = 1e-3 if cifar else 1e-4
    add("l2", method={"name": "l2", "strength": strength, "step_size": 0.01})
    shrink = {"name": "shrink_perturb", "variant": "upgd", "shrink": 1e-3}
    noise = {"noise_std": 0.01, **POOLED, "step_size": 0.01}
    add("shrink_perturb", method={**shrink, **noise})
    add("adamw", method=adamw)
    cbp = {"name": "continual_backprop", "replacement_rate": 1e-4}
    add("continual_backprop", method={**cbp, "step_size": 0.01})
