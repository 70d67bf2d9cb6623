"""Online Permuted MNIST (Dohare et al., Nature 2024): who keeps learning?"""

from cl_bench import config


def get_config(arg: str = ""):
    """Modes `smoke`, `small` and `full`."""
    mode = config.mode(arg, ("smoke", "small", "full"), "small")
    widths = (2000,) * 3 if mode == "full" else (100,) * 3
    return config.study(
        name=f"online_permuted_mnist_{mode}",
        benchmark="online_permuted_mnist",
        stream={"name": "permuted", "dataset": "mnist", "num_tasks": 800},
        network={"name": "mlp", "widths": widths},
        method={"name": "backprop", "step_size": 0.003},
        metrics=("online_accuracy", "dead_units", "weight_magnitude", "effective_rank"),
        seeds=2,
        execution={"lanes": "map"},
    )


def sweep(add, config):
    """The arms."""
    del config
    add("backprop")
    add("continual_backprop", method={"name": "continual_backprop", "replacement_rate": 1e-4})
