"""Every method on streams of both suites: it runs there, or is refused with a reason.

A task of every pair is traced, not compiled. Two streams are met only by methods that
look at the task's number, its outputs or its examples: to the others label_permuted is
what permuted is, and task-incremental what domain-incremental is.
"""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench import config, flops, launch, registry, study
from cl_bench.fields import ConfigError
from cl_bench.runner import Run
from tests import small_study

OPTIONS = {"train": 60, "test": 12, "size": 4, "classes": 4}
IMAGES = {"dataset": "synthetic", "dataset_options": OPTIONS, "batch_size": 5}
BOUNDARIES = {"offers": ("boundaries",)}
SPLIT = {**IMAGES, "classes_per_task": 2}
# Each stream: its name, settings of two small tasks, and a network for it.
STREAMS: dict[str, tuple[str, dict[str, Any], str]] = {
    "label_permuted": (
        "label_permuted",
        {**IMAGES, **BOUNDARIES, "steps_per_task": 10, "fit_examples": 4},
        "mlp",
    ),
    "permuted": ("permuted", {**IMAGES, **BOUNDARIES, "steps_per_task": 10}, "mlp"),
    "class_pairs": (
        "class_pairs",
        {**IMAGES, "epochs": 1, "train_per_class": 10, "test_per_class": 2},
        "cnn",
    ),
    "bit_flipping": (
        "bit_flipping",
        {"bits": 6, "flipping": 3, "target_units": 4, "steps_per_task": 10},
        "mlp",
    ),
    "class_incremental": (
        "class_incremental",
        {**SPLIT, "epochs": 2, "fit_per_class": 2, "augment": False, "flatten": True},
        "mlp",
    ),
    "split_classes": ("split_classes", {**SPLIT, "scenario": "domain"}, "mlp"),
    "split_classes, task": ("split_classes", {**SPLIT, "scenario": "task"}, "mlp"),
}
NETWORKS: dict[str, dict[str, Any]] = {
    "mlp": {"widths": (5, 4)},
    "cnn": {"channels": (3,), "kernels": (2,), "dense": (4,)},
}
TASK_ID = ("hat", "packnet", "independent", "lora_per_task", "progressive")
BY_TASK = (*TASK_ID, "lwf", "dgr", "gem", "agem", "experience_replay", "ewc", "ogd")
HEAD, BEST = "resets the head", "puts back the best network"
DENSE, LABELS = "network mlp", "is a regression"
ONE = "statistics='average'"
REFUSED = {
    ("class_pairs", "gpm"): DENSE,
    ("class_pairs", "inflora"): DENSE,
    ("class_pairs", "ncl"): DENSE,
    ("class_pairs", "progressive"): DENSE,
    ("class_pairs", "dash"): HEAD,
    ("class_pairs", "hat"): HEAD,
    ("class_pairs", "lora_per_task"): HEAD,
    ("class_pairs", "packnet"): HEAD,
    ("class_incremental", "hat"): BEST,
    ("class_incremental", "lora_per_task"): BEST,
    ("class_incremental", "o_lora"): BEST,
    ("class_incremental", "packnet"): BEST,
    ("class_incremental", "progressive"): BEST,
    ("class_incremental", "si"): BEST,
    ("class_incremental", "trac"): "step_schedule",
    ("bit_flipping", "dgr"): LABELS,
    ("bit_flipping", "ewc"): LABELS,
    ("bit_flipping", "grama"): ONE,
    ("bit_flipping", "lwf"): LABELS,
    ("bit_flipping", "ncl"): LABELS,
    ("bit_flipping", "ogd"): LABELS,
    ("bit_flipping", "redo"): ONE,
}
OFFERS = {"bit_flipping": (), "split_classes, task": ("boundaries", "task_id")}


def cfg(stream: str, method: str, **settings: Any) -> Any:
    """Two small tasks."""
    name, options, network = STREAMS[stream]
    norm = {"norm": "layer"} if method == "nap" else {}
    rank = {"rank": 1} if "lora" in method else {}
    return config.study(
        name="any",
        stream={"name": name, "num_tasks": 2, **options},
        network={"name": network, **NETWORKS[network], **norm},
        method={"name": method, **rank, **settings},
        seeds=1,
        execution={"lanes": "map", "devices": 1},
    )


def lane_of(run_spec: Any) -> tuple[Run, Any, Any]:
    """The run of a group, and the shapes of its data and settings."""
    (group,) = study.group([run_spec])
    made = study.build(group)
    data = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, made.stream.load()))
    hyper = jax.tree.map(lambda lanes: lanes[0], study.hyper_batch(group))
    return launch.make_group_run(made), data, hyper


def shapes_of_a_task(run_spec: Any) -> Any:
    """Carry and records of the first task as the program has them; none is compiled."""
    run, data, hyper = lane_of(run_spec)
    segments = run.schedule.segments_per_task

    def task(data, seed, hyper):
        first = run.init(data, seed, hyper)
        return first, run.chunk(data, seed, hyper, first, 0, segments, segments)

    return jax.eval_shape(task, data, jnp.uint32(0), hyper)


def refusal(stream: str, method: str) -> str | None:
    """What the message says of a pair that cannot be."""
    offers = OFFERS.get(stream, ("boundaries",))
    lacking = sorted(registry.load("methods", method).NEEDS.difference(offers))
    missing = f"needs {', '.join(lacking)}" if lacking else None
    return REFUSED.get((stream, method), missing)


SAMPLED = ("label_permuted", "split_classes, task")
PAIRS = [
    (stream, method)
    for stream in STREAMS
    for method in registry.names("methods")
    if stream not in SAMPLED or method in BY_TASK
]


@pytest.mark.parametrize(("stream", "method"), PAIRS)
def test_a_method_runs_on_streams_of_both_suites(stream, method):
    made = cfg(stream, method)
    if reason := refusal(stream, method):
        with pytest.raises(ConfigError, match=reason):
            study.expand(made)
        return
    (run_spec,) = study.expand(made)
    assert not run_spec.oracle
    first, (after, rows) = shapes_of_a_task(run_spec)
    chex.assert_trees_all_equal_shapes_and_dtypes(first, after)
    assert {"diverged", "online_accuracy"} <= rows.keys()


@pytest.mark.parametrize("method", registry.names("methods"))
def test_the_operations_of_every_method_can_be_counted(method):
    made = cfg("split_classes, task", method)
    (run_spec,) = study.expand(made)
    run, data, hyper = lane_of(run_spec)
    carry = jax.eval_shape(run.init, data, jnp.uint32(0), hyper)
    at = (data, jnp.uint32(0), hyper, carry)
    step = flops.count(run.step, *at).flops
    weights = sum(w.size for w in jax.tree.leaves(carry.learner.net.params))
    assert step > 4 * weights * made.stream.batch_size  # forward and backward
    assert all(flops.count(hook, *at).flops >= 0 for hook in run.hooks.values())


@pytest.mark.parametrize(
    ("stream", "method", "settings"),
    [
        ("label_permuted", "ewc", {}),
        ("split_classes", "continual_backprop", {"replacement_rate": 0.1}),
    ],
)
def test_and_learns_there(stream, method, settings, tmp_path):
    made = cfg(stream, method, **settings)
    small_study.launch_all(made, tmp_path)
    rows = small_study.rows(tmp_path)
    assert np.isfinite(np.asarray(rows["online_accuracy"])).all()
    assert not np.asarray(rows["diverged"]).any()
