"""The plasticity suite of Kumar, Marklund and Van Roy: who keeps learning, at their best?

Protocol (Kumar et al., CoLLAs 2024, arXiv 2308.11958, and their released code): inputs
in [-1, 1] (its CIFAR is standardised by channel), PyTorch's default initialisation, the
optimiser never reset, no head reset; the number is the accuracy before each update,
averaged over a task and over the run (total average online accuracy). The paper's arms
run at its best settings for that problem and optimiser (its tables 3 and 4): `BEST`.

    python -m cl_bench.main --config=experiments/kumar.py:PROBLEM,OPTIMIZER \\
        --workdir=results/kumar
    PROBLEM    pm         permuted MNIST, 500 tasks of 10,000 images, batch 16
               rl_mnist   random-label MNIST, 50 tasks of 1,200 images, 400 epochs;
               rl_cifar   CIFAR-10, likewise
               five_one   5+1: 5 classes, then 1, then 5, ...
               ci         continual ImageNet, 500 pairs of classes, 10 epochs
               smoke      pm, 3 tasks of 20 steps
    OPTIMIZER  adam (the default) or sgd

Beside the paper's arms: `L2 + layer norm` (Lyle et al. 2024, from a secondary source), at
three strengths of their region and the best step size of layer norm; where inputs are
permuted, the control `backprop, ema input`: backprop at its best step size behind an
online standardisation of the inputs (decay .99, ours).

Departures: `five_one` and `ci` run on `imagenet_resized/32x32`, which their benchmark's
name in the records says; the paper's `five_one` is CIFAR-100
(`--config.stream.dataset=cifar100 --config.benchmark=kumar-five_one-cifar100`). `ci` has
500 + 50 images of a class, not 600 + 100 (`--config.stream.train_per_class=600
--config.stream.test_per_class=100`): 100 steps a task, not 120, and ReDo's period is as
many tasks. CReLU has .09 of the units fewer in the MLP, .31 of the channels and .27 of the
dense units (.31 with 100 outputs) otherwise, as in the paper. Continual backprop counts all
units on convolutions and draws whether a unit of the MLP is replaced, as the released code,
which draws dense weights within Kaiming's bounds and in the convolutional network keeps
Adam's first moment of a replaced unit. Our L2 also reaches the scales of layer norm.
`srank_kumar` and `dead_units_kumar` are the paper's metrics, of 1,000 examples.

Measured, `pm,adam`, jax 0.10.2, two CPU cores, in %: online accuracy over the run and the
last 50 tasks, 95 % bootstrap intervals over 10 seeds (rows without have two seeds); of
seeds 0 and 1 that of the first 50 tasks and, at task 500, dead units, effective rank, mean
|w| and `srank_kumar` (of 100 units; of crelu, 182). Published: last 50 tasks, 5 seeds, of
Farias and Jozefiak (ICLR 2025, table 1), from a secondary source, +-2 and not verified:

                          whole run          first  last              publ. dead rank  |w|  srank
    l2_init               83.7 [83.7 83.8]   83.7   83.8 [83.7 83.9]   88    24   14  .027   54
    crelu                 83.2 [83.2 83.2]   83.6   83.1 [83.1 83.1]          0   61  .243  170
    l2                    83.2 [83.1 83.2]   82.9   83.3 [83.2 83.4]         70    7  .007   20
    redo                  82.9 [82.9 83.0]   82.6   83.1 [83.1 83.2]          9   20  .031   68
    continual_backprop    82.1 [82.1 82.1]   81.6   82.2 [82.2 82.3]   88    24   18  .030   55
    shrink_perturb        81.9 [81.9 81.9]   82.2   81.8 [81.8 81.9]         37    5  .012   26
    layer norm            77.0 [76.8 77.1]   81.8   74.4 [74.2 74.6]         25   26  .942   58
    backprop              68.4 [68.0 68.8]   71.9   65.8 [65.1 66.3]   64    41    9  .052   39
    layer norm, L2 1e-5   75.4  76.1         81.6   71.0  71.8               58   14  .376   32
    layer norm, L2 1e-4   78.5  79.2         81.4   77.9  78.8               61   10  .107   26
    layer norm, L2 1e-3   78.1  77.4         79.7   77.4  75.2               86    6  .032   10
    backprop, ema input   74.7  74.8         77.7   72.2  72.7                7   40  .062   78

`pm,sgd`, likewise:
    l2_init               81.3 [81.2 81.3]   80.5   81.4 [81.4 81.5]   83     6   24  .027   76
    continual_backprop    80.8 [80.7 80.8]   79.9   80.8 [80.6 80.9]   84     1   30  .022   73
    shrink_perturb        80.6 [80.6 80.6]   80.1   80.7 [80.7 80.7]   82     5   20  .021   75
    redo                  80.6 [80.5 80.7]   79.8   80.4 [80.3 80.6]   83     2   26  .021   65
    crelu                 80.6 [80.5 80.6]   81.5   79.9 [79.8 79.9]          0   54  .090  164
    backprop, ema input   80.0 [79.9 80.1]   84.2   77.1 [76.9 77.4]         26   34  .074   58
    l2                    78.8 [78.8 78.9]   79.7   78.4 [78.3 78.6]   82    31    8  .005   26
    layer norm            76.8 [76.7 76.9]   80.6   73.6 [73.4 73.8]   69    18   25  .096   61
    backprop              71.0 [70.8 71.2]   78.9   66.0 [65.0 66.9]   71    68    7  .074   17
    layer norm, L2 1e-5   76.9  76.7         80.6   74.1  73.6               19   24  .094   59
    layer norm, L2 1e-4   77.8  77.7         80.7   75.8  75.2               12   28  .083   64
    layer norm, L2 1e-3   78.9  78.7         80.7   77.6  76.6               20   19  .038   38

The paper's figures put L2-Init among the three best with Adam on all five problems; so it is
here, and first with SGD. Its table 2 has L2-Init (1e-3) at 81.1 over 20 tasks: here 82.0
[81.8 82.1]. L2 improves layer norm (Lyle et al.), still behind most; at 1e-2 it has 76.5 and
76.9 with Adam, 55.6 with SGD. The other problems are not measured. Most of ours are 1 to 6
below those published. Causes, checked (last 50 tasks, two seeds, backprop, continual
backprop, ReDo, L2-Init): (1) the released code of Farias and Jozefiak has pixels in [0, 1],
LeCun's initialiser, penalties without the half: so 77.8 83.8 83.8 83.5, L2 80.0, with Adam
73.4 87.9 88.2 87.8: within 2 of theirs, backprop 7 and 9 ahead; (2) with SGD batches of 8
have 67.5 81.4 81.6 83.2, steps of .03 65.2 78.4 77.9 80.3, of .003 68.9 79.1 78.5 77.3; (3)
images drawn anew for every task have 64.7 80.0 79.4 80.6.
"""

from typing import Any

from cl_bench import config

PROBLEMS = ("pm", "rl_mnist", "rl_cifar", "five_one", "ci", "smoke")
OPTIMIZERS = ("adam", "sgd")
MLP = ("pm", "rl_mnist", "smoke")  # the others have a convolutional network
IMAGENET = "imagenet_resized/32x32"
CONTROL = {"input_norm": "ema", "input_decay": 0.99}
METRICS = (
    *("online_accuracy", "dead_units", "weight_magnitude", "effective_rank"),
    *("dead_units_kumar", "srank_kumar"),
)

ARMS = (
    *("backprop", "layer norm", "l2_init", "l2"),
    *("shrink_perturb", "continual_backprop", "crelu", "redo"),
)
# (problem, optimiser) -> the paper's best settings of each of ARMS: step size, then
# strength; shrink and noise; replacement rate; period in steps and threshold.
BEST: dict[tuple[str, str], tuple[tuple[float, ...], ...]] = {
    ("pm", "adam"): (
        (1e-4,), (1e-3,), (1e-3, 1e-2), (1e-3, 1e-2),
        (1e-3, 1e-3, 1e-2), (1e-3, 1e-3), (1e-3,), (1e-3, 625, 0.0),
    ),
    ("pm", "sgd"): (
        (1e-2,), (1e-2,), (1e-2, 1e-2), (1e-2, 1e-2),
        (1e-2, 1e-4, 1e-2), (1e-2, 1e-3), (1e-2,), (1e-2, 625, 0.0),
    ),
    ("rl_mnist", "adam"): (
        (1e-4,), (1e-4,), (1e-4, 1e-2), (1e-4, 1e-2),
        (1e-4, 1e-4, 1e-2), (1e-3, 1e-3), (1e-3,), (1e-3, 30_000, 0.1),
    ),
    ("rl_mnist", "sgd"): (
        (1e-3,), (1e-3,), (1e-2, 1e-2), (1e-2, 1e-2),
        (1e-2, 1e-4, 1e-2), (1e-2, 1e-3), (1e-2,), (1e-2, 30_000, 0.1),
    ),
    ("rl_cifar", "adam"): (
        (1e-3,), (1e-3,), (1e-3, 1e-2), (1e-4, 1e-2),
        (1e-3, 1e-4, 1e-2), (1e-3, 1e-4), (1e-3,), (1e-4, 30_000, 0.1),
    ),
    ("rl_cifar", "sgd"): (
        (1e-2,), (1e-2,), (1e-2, 1e-2), (1e-2, 1e-2),
        (1e-2, 1e-4, 1e-2), (1e-2, 1e-3), (1e-3,), (1e-2, 30_000, 0.1),
    ),
    ("five_one", "adam"): (
        (1e-4,), (1e-4,), (1e-3, 1e-2), (1e-3, 1e-3),
        (1e-3, 1e-4, 1e-2), (1e-3, 1e-4), (1e-3,), (1e-3, 1_560, 0.0),
    ),
    ("five_one", "sgd"): (
        (1e-2,), (0.1,), (1e-2, 1e-5), (1e-2, 1e-4),
        (1e-2, 1e-5, 1e-2), (1e-2, 1e-3), (1e-2,), (1e-2, 1_560, 0.0),
    ),
    ("ci", "adam"): (
        (1e-4,), (1e-3,), (1e-3, 1e-3), (1e-3, 1e-3),
        (1e-3, 1e-4, 1e-2), (1e-3, 1e-4), (1e-3,), (1e-3, 120, 0.0),
    ),
    ("ci", "sgd"): (
        (0.1,), (0.1,), (0.1, 1e-3), (0.1, 1e-3),
        (0.1, 1e-4, 1e-4), (0.1, 1e-3), (1e-2,), (0.1, 600, 0.1),
    ),
}  # fmt: skip
FIELDS: dict[str, tuple[str, ...]] = {  # what the numbers after the step size are
    "l2_init": ("strength",),
    "l2": ("strength",),
    "shrink_perturb": ("shrink", "noise_std"),
    "continual_backprop": ("replacement_rate",),
    "redo": ("period", "threshold"),
}
LAYER_NORM_L2 = [1e-5, 1e-4, 1e-3]  # the region of Lyle et al., who decay weights
STATIC: dict[str, dict[str, Any]] = {
    "l2_init": {"convention": "code"},
    "shrink_perturb": {"variant": "kumar"},
    "redo": {"source": "initial", "moment_reset": "none"},
}


def get_config(arg: str = ""):
    """One problem with one optimiser."""
    first, _, second = arg.partition(",")
    problem = config.mode(first, PROBLEMS, "pm")
    optimizer = config.mode(second, OPTIMIZERS, "adam")
    return config.study(
        name=f"kumar-{problem}-{optimizer}",
        benchmark=_benchmark(problem),
        stream=_stream(problem),
        network=_network(problem, crelu=False),
        method={"name": "backprop", "step_size": 1e-3, "optimizer": optimizer},
        metrics=METRICS,
        seeds=2 if problem == "smoke" else 10,
        execution={"lanes": "map"},
    )


def sweep(add, config):
    """All arms at the paper's best settings, then a preset and a control of our own."""
    _, problem, optimizer = config.study.split("-")
    best = BEST["pm" if problem == "smoke" else problem, optimizer]
    table = dict(zip(ARMS, best, strict=True))
    for arm, values in table.items():
        method = _method(arm, values, optimizer)
        if arm == "continual_backprop":  # their two codes differ
            method |= {"accumulate": False} if problem in MLP else {"count": "total"}
        if arm == "redo" and problem == "ci":
            method["period"] = _period(method["period"], config.stream)
        network = {"norm": "layer"} if arm == "layer norm" else {}
        if arm == "crelu":
            network = _network(problem, crelu=True)
        add(arm, method=method, network=network)
    l2 = {**_method("layer norm", table["layer norm"], optimizer), "name": "l2"}
    l2["strength"] = LAYER_NORM_L2
    add("L2 + layer norm", method=l2, network={"norm": "layer"})
    if problem in ("pm", "smoke"):
        backprop = _method("backprop", table["backprop"], optimizer)
        add("backprop, ema input", method=backprop, network=CONTROL)


def _method(arm: str, values: tuple[float, ...], optimizer: str) -> dict[str, Any]:
    method: dict[str, Any] = {"step_size": values[0]}
    method |= dict(zip(FIELDS.get(arm, ()), values[1:], strict=True))
    if arm in FIELDS:
        method |= {"name": arm, **STATIC.get(arm, {})}
    if arm == "continual_backprop" and optimizer == "adam":
        # The optimiser of the released generate-and-test, which Kumar et al. use.
        method |= {"optimizer": "adam_gnt", "moment_reset": "moments+count"}
    return method


def _period(paper: float, stream: Any) -> int:
    """ReDo's period on `ci`: as many whole tasks as in the paper's 120 steps a task."""
    epoch = 2 * stream.train_per_class // stream.get("batch_size", 100)
    return int(paper) // 120 * stream.epochs * epoch


def _benchmark(problem: str) -> str:
    on = f"-{IMAGENET}" if problem in ("five_one", "ci") else ""
    return f"kumar-{problem}{on}"


def _stream(problem: str) -> dict[str, Any]:
    colour = problem in ("rl_cifar", "five_one")
    scaled = {"scale": "channel" if colour else "minus_one_one"}
    if problem in ("pm", "smoke"):
        size = {"examples": 10_000, "batch_size": 16, "num_tasks": 500}
        if problem == "smoke":
            size |= {"num_tasks": 3, "steps_per_task": 20}
        return {"name": "permuted", "dataset": "mnist", **size, **scaled}
    if problem.startswith("rl_"):
        dataset = {"rl_mnist": "mnist", "rl_cifar": "cifar10"}[problem]
        flat = {"flatten": problem == "rl_mnist"}
        return {"name": "random_label", "dataset": dataset, **flat, **scaled}
    if problem == "five_one":
        return {"name": "five_plus_one", "dataset": IMAGENET, **scaled}
    size = {"epochs": 10, "num_tasks": 500, "reset_head": False}
    size |= {"train_per_class": 500, "test_per_class": 50}
    return {"name": "class_pairs", "dataset": IMAGENET, **size, **scaled}


def _network(problem: str, *, crelu: bool) -> dict[str, Any]:
    if problem in MLP:
        width = 91 if crelu else 100
        chosen: dict[str, Any] = {"name": "mlp", "widths": (width, width)}
    else:
        channels, dense = (
            (11, 69 if problem == "five_one" else 73) if crelu else (16, 100)
        )
        chosen = {"name": "cnn", "channels": (channels,) * 2, "kernels": (5, 5)}
        chosen["dense"] = (dense,) * 2
    return {**chosen, "init": "pytorch", "activation": "crelu" if crelu else "relu"}
