"""Hare and Tortoise against the numpy oracle: the slow copy, and when the fast returns."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench import units
from cl_bench.methods import hare_tortoise
from cl_bench.networks import mlp
from tests import tiny
from tests.reference import hare_tortoise as oracle_tortoise
from tests.reference import mlp as oracle_mlp
from tests.reference import optimizers as oracle

STEPS = 50
NET = mlp.make(tiny.SPEC, widths=(12, 10))
ADAM = {"optimizer": "adam", "beta1": 0.8, "beta2": 0.99, "epsilon": 1e-6}
# The optimiser's momentum is not the slow copy's.
HEAVY = {"optimizer": "momentum", "momentum": 0.5}
OPTIMIZERS = {
    "adam": (
        ADAM, oracle.init_adam,
        partial(oracle.adam, step_size=0.003, b1=0.8, b2=0.99, eps=1e-6),
    ),
    "momentum": (
        HEAVY, oracle.init_momentum, partial(oracle.momentum, step_size=0.003, mu=0.5),
    ),
}  # fmt: skip
close = partial(chex.assert_trees_all_close, rtol=1e-5, atol=2e-6)

UNEQUAL = {
    "num_tasks": 3, "steps_per_task": (9, 25, 16),
    "task_examples": (2 * tiny.BATCH, 5 * tiny.BATCH, 2 * tiny.BATCH),
}  # fmt: skip
# Steps after which the hare returns, and those at which the task is another.
TORTOISE = {
    "one task": (
        {"examples_per_task": 3 * tiny.BATCH, "steps_per_task": STEPS},
        [6 * (i + 1) for i in range(8)],
    ),
    # Epochs of 2 and 5 steps, two to a period: 4 steps in tasks of 9 and 16, 10 in the
    # task of 25; the step of task 0 that is left over counts.
    "unequal tasks": (UNEQUAL, [4, 8, 18, 28, 35, 39, 43, 47]),
    "nobody is told": ({**UNEQUAL, "offers": frozenset()}, [10, 20, 30, 40, 50]),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("case", TORTOISE)
def test_hare_returns_to_the_tortoise(case, optimizer):
    facts, returns = TORTOISE[case]
    settings, start, update = OPTIMIZERS[optimizer]
    hyper = hare_tortoise.Hyper(
        **settings, step_size=0.003, slow_momentum=0.9, period=2
    )
    method = hare_tortoise.make(NET, tiny.SPEC._replace(**facts), hyper)
    data = tiny.batches(STEPS)
    # The clock that the runner shows a method that needs no boundaries: task 0, always.
    first, learners, _ = tiny.run(method, data)
    params = oracle_mlp.cast(first.net.params)
    opt, slow = start(params), params
    for i in range(STEPS):
        _, _, grads = oracle_mlp.loss_and_grads(params, data.x[i], data.y[i])
        params, opt = update(params, grads, opt)
        slow = oracle_tortoise.ema(slow, params, 0.9)
        if i + 1 in returns:
            params = slow
        found = tiny.at(learners, i)
        close(found.net.params, jax.tree.map(np.float32, params))
        own = found.extra["transform_0"]
        close(own.slow.params, jax.tree.map(np.float32, slow))


def test_the_longest_period_is_never():
    hyper = hare_tortoise.Hyper(step_size=0.1, slow_momentum=0.9, period=2**31 - 1)
    for facts in ({}, UNEQUAL):
        method = hare_tortoise.make(NET, tiny.SPEC._replace(**facts), hyper)
        _, learners, _ = tiny.run(method, tiny.batches(20))
        since = learners.extra["transform_0"].since
        np.testing.assert_array_equal(since, np.arange(1, 21))


def test_the_tortoise_predicts_where_it_is_asked_to():
    batch = jax.tree.map(jnp.asarray, tiny.at(tiny.batches(1), 0))
    logits = []
    for who in ("hare", "tortoise"):
        hyper = hare_tortoise.Hyper(step_size=0.5, slow_momentum=1.0, evaluate=who)
        method = hare_tortoise.make(NET, tiny.SPEC, hyper)
        learner = method.init(tiny.KEY)
        before = method.predict(learner, batch)[0]
        learner, _ = method.step(tiny.KEY, tiny.clock(0), batch, learner)
        logits.append((before, method.predict(learner, batch)[0]))
    chex.assert_trees_all_equal(*logits[1])  # momentum 1: the slow copy never moves
    assert np.abs(logits[0][0] - logits[0][1]).max() > 1e-3


def test_normalisation_statistics_have_a_slow_copy_too():
    net = mlp.make(tiny.SPEC, widths=(12, 10), norm="online")
    hyper = hare_tortoise.Hyper(
        **HEAVY, step_size=0.003, slow_momentum=0.9, period=2**31 - 1
    )
    back = hyper.replace(period=1)
    spec = tiny.SPEC._replace(examples_per_task=5 * tiny.BATCH)  # 5 steps an epoch
    method = hare_tortoise.make(net, spec, hyper)
    first, learners, _ = tiny.run(method, tiny.batches(4))
    slow = first.net.stats
    for i in range(4):
        fast = tiny.at(learners, i).net.stats
        slow = jax.tree.map(lambda s, f: 0.9 * s + 0.1 * f, slow, fast)
        close(tiny.at(learners, i).extra["transform_0"].slow.stats, slow)
    moved = jax.tree.map(lambda s, f: np.abs(s - f).max(), slow, fast)
    assert max(jax.tree.leaves(moved)) > 1e-3
    returned = hare_tortoise.make(net, spec, back)
    _, learners, _ = tiny.run(returned, tiny.batches(5))
    last = tiny.at(learners, 4)
    chex.assert_trees_all_equal(last.net, last.extra["transform_0"].slow)
    earlier = tiny.at(learners, 3)
    with pytest.raises(AssertionError):
        chex.assert_trees_all_equal(
            earlier.net.stats, earlier.extra["transform_0"].slow.stats
        )


def test_the_benchmark_resets_the_head_of_the_slow_copy_too():
    facts = {"num_tasks": 3, "steps_per_task": 4, "reset_head": True}
    spec = tiny.SPEC._replace(**facts)
    hyper = hare_tortoise.Hyper(step_size=0.1, slow_momentum=0.75)
    method = hare_tortoise.make(NET, spec, hyper)
    step = tiny.quick_jit(method.step)
    learner, data = method.init(tiny.KEY), tiny.batches(5)
    for i in range(5):
        if i == 4:  # the runner resets the network before the task's first step
            net = units.reset_head(learner.net, NET.head)
            learner = learner._replace(net=net)
        before = learner.extra["transform_0"].slow.params
        batch = jax.tree.map(jnp.asarray, tiny.at(data, i))
        learner, _ = step(tiny.step_key(i), tiny.clock(i), batch, learner)
        slow, fast = learner.extra["transform_0"].slow.params, learner.net.params
        kept = 0.0 if i in (0, 4) else 1.0
        for layer, share in (("head", kept), ("h1", 1.0)):
            expected = 0.75 * share * before[layer]["kernel"]
            expected = expected + 0.25 * fast[layer]["kernel"]
            close(slow[layer]["kernel"], expected)
    assert np.abs(before["head"]["kernel"]).max() > 0.01
