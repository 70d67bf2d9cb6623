"""What the tests of rehearsal share: a run over three tasks, beside an oracle."""

from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from cl_bench.methods._compose import AFTER_KEY, LOSS_KEY
from cl_bench.networks import mlp
from cl_bench.types import Batch, Clock
from tests import tiny
from tests.reference import memory as oracle_memory
from tests.reference import mlp as oracle_mlp
from tests.reference import optimizers as oracle_optimizers

TASKS, LENGTH, REPLAYED = 3, 20, 6
STEPS = TASKS * LENGTH
STEP_SIZE = 0.05
SPEC = tiny.SPEC._replace(
    num_tasks=TASKS, steps_per_task=LENGTH, examples_per_task=LENGTH * tiny.BATCH
)
NET = mlp.make(SPEC, widths=(8, 6))
close = partial(chex.assert_trees_all_close, rtol=1e-5, atol=5e-6)
sgd = partial(oracle_optimizers.sgd, state={}, step_size=STEP_SIZE)


def problem() -> Batch:
    """Three tasks that relabel the same inputs, with padding in every third batch."""
    data = tiny.batches(STEPS)
    task = (np.arange(STEPS) // LENGTH)[:, None]
    y = (data.x[..., : tiny.OUTPUTS].argmax(-1) + task) % tiny.OUTPUTS
    weight = data.weight.copy()
    weight[::3, 1] = 0.0
    return data._replace(y=y.astype(np.int32), weight=weight)


DATA = problem()


def end_key(task):
    return jax.random.fold_in(tiny.KEY, 1000 + task)


def run(method):
    """The learner before and after each of the steps; leaves are [STEPS, ...]."""

    def body(learner, inputs):
        i, batch = inputs
        clock = Clock(i, i // LENGTH, i % LENGTH)
        after, _ = method.step(tiny.step_key(i), clock, batch, learner)
        return after, (learner, after)

    def one_task(learner, task):
        first = task * LENGTH
        steps = first + jnp.arange(LENGTH, dtype=jnp.int32)
        own = jax.tree.map(lambda a: jnp.asarray(a)[steps], DATA)
        learner, seen = jax.lax.scan(body, learner, (steps, own))
        clock = Clock(first + LENGTH, task, jnp.int32(LENGTH))
        train = partial(tiny.at, own)
        return method.end_task(end_key(task), clock, train, learner), seen

    first = method.init(tiny.KEY)
    _, seen = tiny.quick_jit(
        lambda learner: jax.lax.scan(one_task, learner, jnp.arange(TASKS))
    )(first)
    return jax.tree.map(lambda a: np.asarray(a).reshape(STEPS, *a.shape[2:]), seen)


def compare(method, grads_of):
    """`grads_of(i, params, learner before, state)` against the method's SGD steps."""
    before, after = run(method)
    params, rows = oracle_mlp.cast(tiny.at(before.net.params, 0)), []
    for i in range(STEPS):
        grads = grads_of(i, params, tiny.at(before, i))
        params, _ = sgd(params, grads)
        rows.append(params)
    expected = jax.tree.map(lambda *p: np.stack(p).astype(np.float32), *rows)
    close(after.net.params, expected)
    return before, after


def current(i):
    return DATA.x[i], DATA.y[i], DATA.weight[i]


def examples(numbers):
    """Inputs and labels of examples by their number in the run."""
    at = np.array(numbers, int)
    return DATA.x.reshape(-1, tiny.INPUTS)[at], DATA.y.reshape(-1)[at]


def picked(key, places, size=REPLAYED):
    """What a method draws of the filled places, as numbers of examples."""
    filled = [e for e in places if e >= 0]
    nth = jax.random.randint(key, (size,), 0, max(len(filled), 1))
    return [filled[j] for j in np.asarray(nth)] if filled else None


def keys(i):
    """Those of the replayed batches of step i, and of the memory after it."""
    loss = jax.random.fold_in(tiny.step_key(i), LOSS_KEY)
    return loss, jax.random.fold_in(tiny.step_key(i), AFTER_KEY)


def numbers_of(i):
    """The examples of step i that are not padding."""
    return i * tiny.BATCH + np.arange(tiny.BATCH)


class Filled:
    """An oracle memory that follows the run: `take_in(i)` after each step."""

    def __init__(self, policy, capacity):
        self.policy, self.places, self.seen = policy, [-1] * capacity, 0
        self.state: dict[str, Any] = {"seen": {}, "full": set()}

    def take_in(self, i):
        key, kept = keys(i)[1], DATA.weight[i] > 0
        n = np.maximum(self.seen + np.cumsum(kept) - 1, 0)
        r = np.asarray(jax.random.randint(key, kept.shape, 0, n + 1))
        u, v = np.asarray(jax.random.uniform(key, (2, tiny.BATCH)))
        for j in np.flatnonzero(kept):
            example = int(numbers_of(i)[j])
            if self.policy == "reservoir":
                oracle_memory.reservoir(self.places, example, int(n[j]), int(r[j]))
            else:
                oracle_memory.class_balanced(
                    self.places, example, DATA.y.ravel(), self.state, u[j], v[j]
                )
        self.seen += int(kept.sum())


class EqualShares:
    """Which examples each task so far keeps; `take_in(i)` with each step."""

    def __init__(self, capacity):
        self.capacity = capacity
        self.of: dict[int, list[int]] = {}

    def take_in(self, i):
        task, first = divmod(i, LENGTH)
        if first < LENGTH - 1:  # a task is shared out at its end
            return
        draws = np.asarray(jax.random.uniform(end_key(task), (LENGTH, tiny.BATCH)))
        own = DATA.weight[task * LENGTH : i + 1].ravel() > 0
        numbers = (task * LENGTH * tiny.BATCH + np.flatnonzero(own)).tolist()
        self.of.update(
            oracle_memory.equal_share(
                self.of, numbers, draws.ravel()[own], self.capacity
            )
        )


def oracle_ring(per_task, i):
    """Places of a ring memory that has taken in steps 0 .. i - 1."""
    places, count = [-1] * (TASKS * per_task), [0] * TASKS
    for step in range(i):
        task = step // LENGTH
        for example in numbers_of(step)[DATA.weight[step] > 0]:
            oracle_memory.ring(places, int(example), task, count[task], per_task)
            count[task] += 1
    return places


def flat_grads(params, x, y, weight=None):
    """A gradient as one vector, and back."""
    grads = oracle_mlp.loss_and_grads(params, x, y, example_weight=weight)[2]
    vector = np.concatenate([g.ravel() for g in jax.tree.leaves(grads)])

    def back(v):
        leaves, at = [], 0
        for leaf in jax.tree.leaves(grads):
            leaves.append(v[at : at + leaf.size].reshape(leaf.shape))
            at += leaf.size
        return jax.tree.unflatten(jax.tree.structure(grads), leaves)

    return vector, back
