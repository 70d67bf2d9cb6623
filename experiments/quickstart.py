"""Does a network lose its ability to learn, and does continual backprop keep it?

Online permuted digits: scikit-learn's real 8x8 images, nothing to download.
"""

from cl_bench import config


def get_config(arg: str = ""):
    """`smoke` is a few seconds; the default is the study."""
    mode = config.mode(arg, ("study", "smoke"), "study")
    return config.study(
        name="quickstart",
        benchmark="online_permuted_digits",
        stream={
            "name": "permuted",
            "dataset": "digits",
            "num_tasks": 400 if mode == "study" else 4,
        },
        network={"name": "mlp", "widths": (100, 100, 100)},
        method={"name": "backprop", "step_size": 0.01},
        metrics=("online_accuracy", "dead_units", "weight_magnitude"),
        seeds=4,
        execution={"lanes": "map"},
    )


def sweep(add, config):
    """Backprop against L2, shrink-and-perturb and continual backprop."""
    del config
    add("backprop")
    add("l2", method={"name": "l2", "strength": 1e-4})
    add(
        "shrink_perturb",
        method={
            "name": "shrink_perturb",
            "shrink": 1e-4,
            "noise_std": 1e-5,
            "noise": "pooled",
        },
    )
    add(
        "continual_backprop",
        method={"name": "continual_backprop", "replacement_rate": 1e-4},
    )
