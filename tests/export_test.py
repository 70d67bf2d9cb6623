"""The programs of a small study lower for accelerators that are not here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from cl_bench import config, execute, launch, registry, study

ROOM = 4
PLATFORMS = ("tpu", "cuda")  # of one program, traced and lowered once
# `online_accuracy` records the loss too.
METRICS = tuple(n for n in registry.names("metrics") if n != "online_loss")
# These ask the method; the others read the network, and `backprop` has them all.
OF_THE_METHOD = ("online_accuracy", "accuracy_matrix", "pollution")
# They answer with networks of their own, which pollution cannot compare.
OF_THEIR_OWN = ("independent", "lora_per_task", "progressive")


def sweep(add, config):
    """Every built-in method, and an optimiser with moments."""
    del config
    for name in registry.names("methods"):
        network = {"norm": "layer"} if name == "nap" else {}
        rank = {"rank": 3} if name == "inflora" else {}  # 10 does not fit these layers
        own = METRICS if name == "backprop" else OF_THE_METHOD
        own = tuple(m for m in own if m != "pollution" or name not in OF_THEIR_OWN)
        add(name, method={"name": name, **rank}, network=network, metrics=own)
    add("adam", method={"name": "continual_backprop", "optimizer": "adam"})


def groups():
    small = config.study(
        name="export",
        stream={
            "name": "permuted",
            "num_tasks": 2,
            "steps_per_task": 8,
            "batch_size": 2,
            "offers": ("boundaries", "task_id"),
        },
        network={"name": "mlp", "widths": (6, 5)},
        method={"name": "backprop"},
        metrics=OF_THE_METHOD,
        seeds=2,
    )
    return study.group(study.expand(small, sweep))


GROUPS = {group.runs[0].arm: group for group in groups()}


def exported(arm, strategy):
    """The (start, chunk) of a group as StableHLO for `PLATFORMS`."""
    group = GROUPS[arm]
    made = study.build(group)
    run = launch.make_group_run(made)
    mesh = Mesh(np.array(jax.local_devices()[:1]), ("lanes",))
    start, chunk = execute.functions(run, strategy, mesh, ROOM)
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype),
        (made.stream.load(), study.seeds(group), study.hyper_batch(group)),
    )
    carry = jax.eval_shape(start, *shapes)
    number = jax.ShapeDtypeStruct((), jnp.int32)
    return (
        jax.export.export(start, platforms=PLATFORMS)(*shapes),
        jax.export.export(chunk, platforms=PLATFORMS)(*shapes, carry, number, number),
    )


@pytest.mark.parametrize("arm", GROUPS)
def test_a_group_lowers(arm):
    for program in exported(arm, "vmap"):
        assert program.platforms == PLATFORMS
        assert "callback" not in program.mlir_module()


def test_a_group_lowers_one_lane_after_another():
    start, chunk = exported("backprop", "map")
    assert start.platforms == chunk.platforms == PLATFORMS
