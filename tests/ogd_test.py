"""Orthogonal gradient descent: the oracle, what it leaves alone, and its basis."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from cl_bench.methods import ogd
from tests import task_run, tiny
from tests.reference import mlp as oracle_mlp
from tests.reference import ogd as oracle_ogd
from tests.task_run import DATA, NET, SPEC, STEPS, TASKS, close, compare, first, sgd


def test_ogd_steps_beside_the_oracle():
    hyper = ogd.Hyper(step_size=0.05, examples=15)
    method = ogd.make(NET, SPEC, hyper)
    tasks = task_run.run(method, DATA)
    params, expected, basis = first(method), [], []
    for task in range(TASKS):
        for i in range(STEPS):
            x, y = DATA.x[task, i], DATA.y[task, i]
            grads = oracle_mlp.loss_and_grads(params, x, y)[2]
            params = sgd(params, oracle_ogd.project(grads, basis), hyper.step_size)
            expected.append(params)
        x = DATA.x[task].reshape(-1, tiny.INPUTS)[: hyper.examples]
        basis = oracle_ogd.store(basis, params, x, DATA.y[task].ravel())
    compare(tasks, expected)
    stored = tasks[-1].end.extra["grad_transform_0"]
    chex.assert_trees_all_close(
        stored.T @ stored,
        np.float32(sum(np.outer(v, v) for v in basis)),
        rtol=1e-3, atol=1e-4,
    )  # fmt: skip


def test_ogd_moves_no_stored_answer_to_first_order():
    hyper = ogd.Hyper(step_size=1e-4, examples=10)
    method = ogd.make(NET, SPEC, hyper)
    tasks = task_run.run(method, DATA)
    x = DATA.x[0].reshape(-1, tiny.INPUTS)[:10]
    y = DATA.y[0].ravel()[:10]

    def answers(params):
        state = tasks[0].end.net._replace(params=params)
        logits = NET.apply(state, x, train=False, key=None)[0]
        return logits[np.arange(10), y]

    before, after = tasks[0].end.net.params, tasks[1].steps[-1].net.params
    step = jax.tree.map(jnp.subtract, after, before)
    change = jax.jvp(answers, (before,), (step,))[1]
    size = np.sqrt(sum(np.sum(np.square(s)) for s in jax.tree.leaves(step)))
    assert size > 1e-4
    assert np.max(np.abs(change)) < 1e-3 * size


def test_ogd_skips_directions_that_it_has():
    rows = jnp.array([[1.0, 0, 0, 0], [2.0, 0, 0, 0], [0, 1.0, 1.0, 0]])
    basis = jnp.array([[1.0, 0, 0, 0], [0, 0, 0, 0]])
    found = ogd.new_directions(basis, rows)
    close(
        found.T @ found,
        np.array([[0] * 4, [0, 0.5, 0.5, 0], [0, 0.5, 0.5, 0], [0] * 4], "f4"),
    )
    assert not np.any(ogd.new_directions(basis, jnp.zeros((3, 4))))
