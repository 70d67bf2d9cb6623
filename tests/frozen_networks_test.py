"""Independent networks and frozen features: what stays to the last bit, and what moves."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench.methods import backprop, frozen_features, independent
from cl_bench.networks import mlp
from tests import task_run, tiny
from tests.task_run import STEPS, TASKS

SPEC = task_run.spec()
NET = mlp.make(SPEC, widths=(8, 6))
DATA = task_run.data()
ADAM = {"optimizer": "adam", "step_size": 0.01}


def batch_of(task):
    return jax.tree.map(jnp.asarray, tiny.at(tiny.at(DATA, task), 0))


def alone(task, start):
    """Backprop on one task, from a given network, step by step."""
    method = backprop.make(NET, SPEC, backprop.Hyper(**ADAM))
    learner = method.init(tiny.KEY)
    params = jax.tree.map(jnp.asarray, start)
    learner = learner._replace(net=learner.net._replace(params=params))
    step = tiny.quick_jit(method.step)
    for i in range(STEPS):
        batch = jax.tree.map(jnp.asarray, tiny.at(tiny.at(DATA, task), i))
        key = tiny.step_key(task * STEPS + i)
        learner, _ = step(key, tiny.clock(i), batch, learner)
    return learner


def test_each_task_is_backprop_on_a_network_of_its_own():
    method = independent.make(NET, SPEC, independent.Hyper(**ADAM))
    tasks = task_run.run(method, DATA)
    starts = [t.start.net.params for t in tasks]
    plain = backprop.make(NET, SPEC, backprop.Hyper()).init(tiny.KEY)
    chex.assert_trees_all_equal(starts[0], plain.net.params)
    for task in range(TASKS):
        expected = alone(task, starts[task])
        chex.assert_trees_all_close(
            tasks[task].end.net.params, expected.net.params, rtol=1e-6, atol=1e-7
        )
    kernels = [np.asarray(start["h1"]["kernel"]) for start in starts]
    for a, b in ((0, 1), (1, 2), (0, 2)):
        assert np.mean(kernels[a] == kernels[b]) < 0.1


def test_independent_answers_stay_to_the_last_bit():
    method = independent.make(NET, SPEC, independent.Hyper(**ADAM))
    tasks = task_run.run(method, DATA)
    predict = tiny.quick_jit(method.predict)
    for task in range(TASKS):
        batch = batch_of(task)
        after = predict(tasks[task].end, batch)[0]
        before = predict(tasks[task].start, batch)[0]
        assert np.abs(after - before).max() > 1e-2
        # While it trains, the network that trains answers.
        here = tasks[task].steps[7]
        plain = NET.apply(here.net, batch.x, train=False, key=None)[0]
        chex.assert_trees_all_close(predict(here, batch)[0], plain, rtol=1e-5)
        for later in tasks[task + 1 :]:
            for learner in (later.start, later.steps[9], later.end):
                chex.assert_trees_all_equal(predict(learner, batch)[0], after)
        for earlier in tasks[:task]:  # not trained yet: its initial network
            chex.assert_trees_all_equal(predict(earlier.end, batch)[0], before)


def test_the_head_that_a_benchmark_has_reset_stays_reset():
    method = independent.make(NET, SPEC, independent.Hyper())
    learner = method.init(tiny.KEY)
    zeros = jax.tree.map(jnp.zeros_like, learner.net.params["head"])
    state = learner.net._replace(params={**learner.net.params, "head": zeros})
    started = method.start_task(
        tiny.KEY, tiny.clock(0), lambda i: batch_of(0), learner._replace(net=state)
    )
    chex.assert_trees_all_equal(started.net.params["head"], zeros)


@pytest.mark.parametrize("features", frozen_features.FEATURES)
def test_hidden_layers_are_frozen_and_the_head_learns(features):
    net = mlp.make(SPEC, widths=(8, 6), norm="batch")
    hyper = frozen_features.Hyper(
        features=features, optimizer="adamw", weight_decay=0.1, step_size=0.01
    )
    tasks = task_run.run(frozen_features.make(net, SPEC, hyper), DATA)
    first = tasks[0].start.net
    if features == "first_task":
        plain = backprop.make(net, SPEC, backprop.Hyper(
            optimizer="adamw", weight_decay=0.1, step_size=0.01
        ))  # fmt: skip
        chex.assert_trees_all_close(
            tasks[0].end.net, task_run.run(plain, DATA)[0].end.net,
            rtol=1e-5, atol=1e-6,
        )  # fmt: skip
        first = tasks[0].end.net
    for learner in (tasks[0].end, tasks[1].start, tasks[1].steps[4], tasks[2].end):
        chex.assert_trees_all_equal(learner.net.stats, first.stats)
        for name in ("h1", "h2"):
            chex.assert_trees_all_equal(learner.net.params[name], first.params[name])
    heads = [np.asarray(t.end.net.params["head"]["kernel"]) for t in tasks]
    assert np.abs(heads[2] - heads[1]).max() > 1e-3


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="first_task, random"):
        frozen_features.make(NET, SPEC, frozen_features.Hyper(features="second_task"))
    with pytest.raises(ValueError, match="has none"):
        linear = mlp.make(SPEC, widths=())
        frozen_features.make(linear, SPEC, frozen_features.Hyper())
