"""Does a network lose its ability to learn, and does continual backprop keep it?

Online permuted digits: scikit-learn's real 8x8 images, nothing to download. Each of 400
tasks shows 1,501 images once, one at a time, behind a new permutation of the pixels;
nothing tells the learner where a task ends. 64-100-100-100-10, ReLU, SGD, step 0.01.

    python -m cl_bench.main --config=experiments/quickstart.py --workdir=results/quickstart

Measured: online accuracy in %, mean of 4 seeds [95 % bootstrap interval]; an interval
over 4 seeds is too narrow to be trusted as a 95 % one. Strengths are those of the paper
on MNIST, not tuned here. Dead units: mean of the last 40 tasks.

    arm                  task 1   best task  last 40 tasks       dead units
    backprop              77.8    83.2 (9)  62.4 [61.1, 63.7]   42.2 %
    l2                    77.6    82.8 (7)  69.0 [68.4, 69.7]   38.9 %
    shrink_perturb        77.5    82.5 (9)  69.0 [68.1, 69.6]   37.8 %
    continual_backprop    77.7    85.3 (242)  83.1 [82.8, 83.4]    1.4 %

93 s on two CPU cores, all compilation, records and the report included.

Online accuracy of backprop peaks early and falls; continual backprop peaks late and
holds. L2 and shrink-and-perturb slow the loss and do not stop it, as in Dohare et al.,
Nature 632 (2024) 768-774 (their MNIST; no published number for these images).
"""

from cl_bench import config


def get_config(arg: str = ""):
    """`smoke` is a few seconds; the default is the study."""
    mode = config.mode(arg, ("study", "smoke"), "study")
    tasks, mark = {"study": (400, ""), "smoke": (4, "-smoke")}[mode]
    return config.study(
        name="quickstart",
        benchmark=f"online_permuted_digits{mark}",
        stream={"name": "permuted", "dataset": "digits", "num_tasks": tasks},
        network={"name": "mlp", "widths": (100, 100, 100)},
        method={"name": "backprop", "step_size": 0.01},
        metrics=("online_accuracy", "dead_units", "weight_magnitude"),
        seeds=4,
        execution={"lanes": "map"},
    )


def sweep(add, config):
    """Backprop against L2, shrink-and-perturb and continual backprop."""
    del config
    noise = {"shrink": 1e-4, "noise_std": 1e-5, "noise": "pooled"}
    add("backprop")
    add("l2", method={"name": "l2", "strength": 1e-4})
    add("shrink_perturb", method={"name": "shrink_perturb", **noise})
    add(
        "continual_backprop",
        method={"name": "continual_backprop", "replacement_rate": 1e-4},
    )
