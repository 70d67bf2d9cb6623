"""Memories: who is stored with which probability, and what is drawn of them."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi2

from cl_bench.methods import _memory
from cl_bench.types import Batch
from tests import tiny

RUNS = 4000
SPEC = tiny.SPEC._replace(num_tasks=3, input_shape=(1,), num_outputs=3)


def numbered(labels, size=4):
    """Batches whose inputs are 0, 1, ...; padding, at the end, holds -1."""
    n = len(labels)
    padded = -(-n // size) * size
    x, y = np.full(padded, -1.0, np.float32), np.zeros(padded, np.int32)
    x[:n], y[:n] = np.arange(n), labels
    ones = np.ones((padded, 3), bool)
    weight = (np.arange(padded) < n).astype(np.float32)
    rows = Batch(x[:, None], y, weight, ones, np.zeros(padded, np.int32))
    return jax.tree.map(lambda a: a.reshape(-1, size, *a.shape[1:]), rows)


def fill(policy, labels, capacity, runs):
    """Numbers of the examples stored [runs, M] (-1: none) after all were offered."""
    take_in, data = getattr(_memory, policy), numbered(labels)

    def one(key):
        def body(memory, inputs):
            i, batch = inputs
            return take_in(jax.random.fold_in(key, i), memory, batch), None

        first = _memory.empty(SPEC, capacity, policy)
        last, _ = jax.lax.scan(body, first, (np.arange(len(data.y)), data))
        return jnp.where(last.filled, last.x[:, 0], -1.0).astype(jnp.int32)

    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(tiny.KEY, runs)))


def uniform_inclusion(stored, members):
    """Chi-square of how often each of the members is stored, and its bound."""
    found = np.array([(stored == e).any(axis=1).sum() for e in members])
    p, n = found.sum() / len(stored) / len(members), len(members)
    spread = len(stored) * p * (1 - p) * n / (n - 1)  # without replacement
    statistic = ((found - found.mean()) ** 2).sum() / spread
    return p, statistic, chi2.ppf(0.9999, n - 1)


@pytest.mark.parametrize(("examples", "capacity"), [(22, 5), (13, 3)])
def test_reservoir_includes_every_example_with_probability_m_over_n(examples, capacity):
    stored = fill("reservoir", np.zeros(examples, int), capacity, RUNS)
    assert (np.sort(stored, axis=1)[:, 0] >= 0).all()  # full, without padding
    assert all(len(set(row)) == capacity for row in stored[:50])
    p, statistic, bound = uniform_inclusion(stored, range(examples))
    assert p == pytest.approx(capacity / examples)
    assert statistic < bound


def test_a_memory_that_is_not_full_holds_everything():
    stored = fill("reservoir", np.zeros(10, int), 30, 2)
    assert sorted(stored[0])[-10:] == list(range(10)) and (stored == -1).sum() == 40


def test_class_balanced_keeps_equal_numbers_whatever_the_stream():
    # 40 of class 0, then 15 of class 1 among more of class 0, and 2 of class 2.
    labels = np.array([0] * 40 + [1, 0, 0] * 15 + [2, 0, 2, 0])
    stored = fill("class_balanced", labels, 12, RUNS)
    assert (stored >= 0).all()
    counts = np.stack([(labels[stored] == c).sum(axis=1) for c in range(3)], axis=1)
    chex.assert_trees_all_equal(counts, np.tile([5, 5, 2], (RUNS, 1)))
    for c in (0, 1):
        _, statistic, bound = uniform_inclusion(stored, np.flatnonzero(labels == c))
        assert statistic < bound, c


def test_ring_holds_the_last_examples_of_each_task():
    memory, data = _memory.empty(SPEC, 15, "ring"), numbered(np.zeros(23, int))
    for i, task in enumerate([0, 0, 0, 2, 2, 2]):  # task 2 has padding at its end
        memory = _memory.ring(memory, tiny.at(data, i), jnp.int32(task))
    places = np.where(memory.filled, memory.x[:, 0], -1).reshape(3, 5)
    assert sorted(places[0]) == [7, 8, 9, 10, 11] and (places[1] == -1).all()
    assert sorted(places[2]) == [18, 19, 20, 21, 22]
    chex.assert_trees_all_equal(memory.task, np.repeat([0, 0, 2], 5))


def test_sampling_draws_filled_places_evenly():
    eligible = jnp.array([0, 1, 1, 0, 0, 1, 0], bool)
    place, some = _memory.draw(tiny.KEY, eligible, 3000)
    count = np.bincount(place, minlength=7)
    assert some and count[~np.asarray(eligible)].sum() == 0
    assert ((count[[1, 2, 5]] - 1000) ** 2 / 1000).sum() < chi2.ppf(0.9999, 2)
    memory = _memory.empty(SPEC, 5, "reservoir")
    old, _ = _memory.sample(tiny.KEY, SPEC, memory, 4)
    chex.assert_trees_all_equal(old.weight, np.zeros(4))


@pytest.mark.parametrize(
    ("scenario", "expected"), [("task", [1, 0, 0]), ("class", [1, 1, 0])]
)
def test_outputs_in_play_of_old_examples(scenario, expected):
    spec, batch = SPEC._replace(scenario=scenario), tiny.at(numbered([0] * 4), 0)
    own, now = (np.tile(np.eye(3, dtype=bool)[c], (4, 1)) for c in (0, 1))
    first = batch._replace(classes=own)
    memory = _memory.reservoir(tiny.KEY, _memory.empty(spec, 9, "reservoir"), first)
    memory = _memory.note(memory, batch._replace(classes=now))
    old, _ = _memory.sample(tiny.KEY, spec, memory, 2)
    chex.assert_trees_all_equal(old.classes, np.tile(np.array(expected, bool), (2, 1)))
