"""LoRA and EWC on tasks in sequence: what do they keep, and what did finding that cost?

Figure 1 of the project's report (Reymond 2024, sections 2.1 and 2.3): (a) test accuracy
of each task through continual learning with LoRA (Algorithm 1: the core trains on task
1; then fresh adapters a task, merged at its end); (b) average accuracy of the tasks so
far against the number of hyper-parameter settings tried. And elastic weight
consolidation over strengths of eight decades, for "improving on task 2 means regressing
on task 1".

    python -m cl_bench.main --config=experiments/low_rank_and_consolidation.py:ARMS,MODE \\
        --workdir=results/lora
    ARMS  lora    Figure 1a: LoRA beside fine-tuning, fine-tuning with small steps after
                  the first task's, adapters kept per task, O-LoRA and InfLoRA
          trials  Figure 1b: a grid of 27 settings of LoRA (rank, alpha, step size) and
                  as many step sizes of fine-tuning
          ewc     strengths 1 to 1e8
    MODE  small   Split MNIST, five tasks, 3 seeds
          smoke   digits, two tasks, seconds

Protocol: that of `split_mnist.py` (2 x 400 ReLU, batch 128, 4 epochs a task, Adam at
1e-3), task-incremental, as adapters per task need it; `ewc` is domain-incremental.
The report gives no ranks, scales, step sizes or numbers: nothing is compared.

Not measured yet: only `smoke` has been run.
"""

from typing import Any

from cl_bench import config

ARMS = ("lora", "trials", "ewc")
MODES = ("small", "smoke")
ADAM = {"optimizer": "adam", "step_size": 1e-3}


def get_config(arg: str = ""):
    """Some arms in one of `MODES`."""
    first, _, second = arg.partition(",")
    arms, mode = config.mode(first, ARMS, "lora"), config.mode(second, MODES, "small")
    stream: dict[str, Any] = {"name": "split_classes", "class_order": "natural"}
    stream |= {"scenario": "domain" if arms == "ewc" else "task"}
    if mode == "small":
        stream |= {"dataset": "mnist", "batch_size": 128, "epochs": 4}
        stream |= {"scale": "standardise"}
    else:
        stream |= {"num_tasks": 2}
    widths = (400, 400) if mode == "small" else (20, 20)
    return config.study(
        name=f"low_rank-{arms}-{mode}",
        benchmark=f"split_mnist-{stream['scenario']}",
        stream=stream,
        network={"name": "mlp", "widths": widths, "init": "pytorch"},
        method={"name": "backprop", **ADAM},
        metrics=("accuracy_matrix",),
        seeds=3 if mode == "small" else 2,
        execution={"lanes": "map"},
    )


def sweep(add, config):
    """The arms that the study's name asks for."""
    _, arms, _ = config.study.split("-")
    if arms == "ewc":
        strengths = [10.0**k for k in range(9)]
        add("fine-tuning")
        add("ewc", method={"name": "ewc", "strength": strengths, **ADAM})
        return
    # Adapters of the hidden layers; the head, ten outputs for five tasks, trains on.
    lora = {"name": "lora", "layers": "hidden", "train_head": True, **ADAM}
    if arms == "trials":
        for rank in (1, 4, 16):
            grid = {"alpha": [0.25, 1.0, 4.0], "step_size": [1e-4, 1e-3, 1e-2]}
            add(f"lora, rank {rank}", method={**lora, "rank": rank, **grid})
        steps = [10.0 ** (-5 + 3 * k / 26) for k in range(27)]
        add("fine-tuning", method={"step_size": steps})
        return
    add("fine-tuning")
    add("fine-tuning, small steps", method={"step_size": 1e-4})
    add("lora", method=lora)
    add("lora, rank 1", method={**lora, "rank": 1})
    add("lora, every layer", method={**lora, "layers": "all", "rank": 2,
                                     "train_head": False})  # fmt: skip
    per_task = {"name": "lora_per_task", "layers": "hidden", **ADAM}
    add("lora per task", method=per_task)
    add("o_lora", method={"name": "o_lora", **ADAM})
    add("inflora", method={"name": "inflora", **ADAM})
