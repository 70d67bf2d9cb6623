"""The streams among the fixtures do what they say: growing classes, flipping bits."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from cl_bench import lane as lanes
from cl_bench.methods import backprop
from cl_bench.networks import mlp
from tests.fixtures import bit_flipping, class_incremental
from tests.fixtures_setting import KEY, START, first_batches
from tests.tiny import at

NOTHING: Any = None  # the data of a stream that generates its own


def test_classes_in_play_grow_and_the_others_do_not_learn():
    stream = class_incremental.make()
    data = jax.tree.map(jnp.asarray, stream.load())
    seen = set()
    for task in range(3):
        state = stream.start(data, KEY, jnp.int32(task))
        batches = first_batches(stream, stream.spec.steps_per_task, task)
        own = set(np.asarray(batches.y).ravel().tolist())
        assert len(own) == 2 and not own & seen
        seen |= own
        in_play = np.asarray(batches.classes)
        assert np.all(in_play.sum(-1) == 2 * (task + 1))
        assert set(np.flatnonzero(in_play[0, 0]).tolist()) == seen
        held_out = stream.held_out(data, state, "test", jnp.int32(2), jnp.int32(0))
        assert bool(np.all(held_out.classes)) and set(held_out.y.tolist()) == own
    net = mlp.make(stream.spec, widths=(5,))
    method = backprop.make(net, stream.spec, backprop.Hyper(step_size=0.1))
    batch, learner = at(first_batches(stream, 1), 0), method.init(KEY)
    after, _ = method.step(KEY, START, batch, learner)
    moved = np.any(
        after.net.params["head"]["kernel"] != learner.net.params["head"]["kernel"], 0
    )
    chex.assert_trees_all_equal(moved, np.asarray(batch.classes[0]))


def test_one_bit_flips_a_task_and_the_target_stays():
    stream = bit_flipping.make(num_tasks=6, batch_size=50)
    states = [stream.start(NOTHING, KEY, jnp.int32(t)) for t in range(6)]
    bits = np.stack([s["bits"] for s in states])
    chex.assert_trees_all_equal(np.abs(np.diff(bits, axis=0)).sum(1), np.ones(5, int))
    for state in states:
        chex.assert_trees_all_equal(state["target"], states[0]["target"])
    other = stream.start(NOTHING, lanes.run_key(1), jnp.int32(0))
    assert np.any(other["target"]["w"] != states[0]["target"]["w"])
    batch = stream.batch(NOTHING, states[3], jnp.int32(2))
    chex.assert_trees_all_equal(batch.x[:, :15], np.tile(bits[3], (50, 1)).astype("f4"))
    assert 0.3 < float(batch.x[:, 15:].mean()) < 0.7


def test_targets_are_those_of_the_threshold_units():
    stream = bit_flipping.make(batch_size=20)
    state = stream.start(NOTHING, KEY, jnp.int32(1))
    batch = stream.batch(NOTHING, state, jnp.int32(0))
    target = jax.tree.map(np.asarray, state["target"])
    chex.assert_trees_all_equal(np.abs(target["w"]), np.ones((100, 20), np.float32))
    for x, y in zip(np.asarray(batch.x), np.asarray(batch.y), strict=True):
        total = float(target["bias"])
        for w, b, out in zip(target["w"], target["b"], target["out"], strict=True):
            # S_i, a half-integer as in the released code.
            negative = np.sum(w < 0) + b / 2
            total += out * (w @ x + b > 0.7 * 21 - negative)
        assert y == [total]
