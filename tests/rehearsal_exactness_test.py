"""The rehearsal methods against the numpy oracles, across two task boundaries."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench.methods import (
    agem,
    der,
    der_plus_plus,
    experience_replay,
    gem,
    naive_rehearsal,
)
from cl_bench.networks import mlp
from cl_bench.types import Clock
from tests import tiny
from tests.reference import der as oracle_der
from tests.reference import gem as oracle_gem
from tests.reference import mlp as oracle_mlp
from tests.reference import replay as oracle_replay
from tests.rehearsal_setting import (
    DATA,
    LENGTH,
    NET,
    REPLAYED,
    SPEC,
    STEP_SIZE,
    STEPS,
    TASKS,
    EqualShares,
    Filled,
    compare,
    current,
    examples,
    flat_grads,
    keys,
    numbers_of,
    oracle_ring,
    picked,
)  # fmt: skip


@pytest.mark.parametrize(
    ("policy", "weighting", "r"),
    [("reservoir", "union", 0.7), ("class_balanced", "half", 1.0)],
)
def test_experience_replay(policy, weighting, r):
    hyper = experience_replay.Hyper(
        step_size=STEP_SIZE, replay_weight=r, capacity=15, replay_batch_size=REPLAYED,
        policy=policy, weighting=weighting,
    )  # fmt: skip
    memory = Filled(policy, 15)

    def grads_of(i, params, learner):
        old = picked(jax.random.fold_in(keys(i)[0], 0), memory.places)
        memory.take_in(i)
        replayed = old and (*examples(old), np.ones(REPLAYED))
        return oracle_replay.grads(
            params, current(i), replayed, weighting=weighting, r=r
        )

    _, after = compare(experience_replay.make(NET, SPEC, hyper), grads_of)
    chex.assert_trees_all_equal(after.extra["memory"].x[-1], examples(memory.places)[0])


def stored(memory, kept):
    """The kept examples in the order of the method's places, once checked."""
    all_x = DATA.x.reshape(-1, tiny.INPUTS)
    places = [
        int(np.flatnonzero((all_x == x).all(1))[0]) if filled else -1
        for x, filled in zip(memory.x, memory.filled, strict=True)
    ]
    expected = sorted(e for numbers in kept.of.values() for e in numbers)
    assert sorted(e for e in places if e >= 0) == expected
    return places


@pytest.mark.parametrize("weighting", ["union", "by_task"])
def test_naive_rehearsal(weighting):
    hyper = naive_rehearsal.Hyper(
        step_size=STEP_SIZE, replay_weight=0.8, capacity=17,
        replay_batch_size=REPLAYED, weighting=weighting,
    )  # fmt: skip
    kept = EqualShares(17)

    def grads_of(i, params, learner):
        task = i // LENGTH
        memory = learner.extra["shares"].memory
        old = picked(jax.random.fold_in(keys(i)[0], 0), stored(memory, kept))
        kept.take_in(i)
        return oracle_replay.grads(
            params, current(i), old and (*examples(old), np.ones(REPLAYED)),
            weighting=weighting, r=0.8, tasks_before=task,
        )  # fmt: skip

    before, _ = compare(naive_rehearsal.make(NET, SPEC, hyper), grads_of)
    filled = before.extra["shares"].memory.filled.sum(axis=1)
    assert [filled[0], filled[LENGTH], filled[-1]] == [0, 17, 16]


@pytest.mark.parametrize(
    ("method", "normalise"), [(der, "sum"), (der_plus_plus, "mean")]
)
def test_der(method, normalise):
    hyper = method.Hyper(
        step_size=STEP_SIZE, alpha=0.3, capacity=15, replay_batch_size=REPLAYED,
        normalise=normalise,
    )  # fmt: skip
    memory, logits = Filled("reservoir", 15), np.zeros((STEPS * tiny.BATCH, 4))

    def grads_of(i, params, learner):
        loss_key = keys(i)[0]
        first, second = (
            picked(jax.random.fold_in(loss_key, k), memory.places) for k in (0, 2)
        )
        logits[numbers_of(i)] = oracle_mlp.forward(params, DATA.x[i])[0]
        memory.take_in(i)
        return oracle_der.grads(
            params, current(i), first and (examples(first)[0], logits[first]),
            second and method is der_plus_plus and examples(second) or None,
            alpha=0.3, beta=0.5, normalise=normalise,
        )  # fmt: skip

    compare(method.make(NET, SPEC, hyper), grads_of)


def test_agem():
    per_task, moved = 7, []
    hyper = agem.Hyper(
        step_size=STEP_SIZE, memory_per_task=per_task, reference_batch_size=REPLAYED
    )

    def grads_of(i, params, learner):
        task = i // LENGTH
        g, back = flat_grads(params, *current(i))
        if task == 0:
            return back(g)
        past = oracle_ring(per_task, i)[: task * per_task]
        grad_key = jax.random.fold_in(tiny.step_key(i), 1)
        old = picked(jax.random.fold_in(grad_key, 0), past)
        used = oracle_gem.agem(g, flat_grads(params, *examples(old))[0])
        moved.append(not np.array_equal(g, used))
        return back(used)

    compare(agem.make(NET, SPEC, hyper), grads_of)
    assert 3 < sum(moved) < len(moved) - 3


def test_gem():
    per_task, moved = 7, []
    hyper = gem.Hyper(step_size=STEP_SIZE, memory_per_task=per_task)

    def grads_of(i, params, learner):
        task = i // LENGTH
        g, back = flat_grads(params, *current(i))
        if task == 0:
            return back(g)
        places = np.array(oracle_ring(per_task, i)).reshape(TASKS, per_task)
        rows = [flat_grads(params, *examples(places[k]))[0] for k in range(task)]
        used = oracle_gem.gem(g, np.stack(rows), margin=0.5, jitter=1e-3)
        moved.append(not np.array_equal(g, used))
        return back(used)

    compare(gem.make(NET, SPEC, hyper), grads_of)
    assert 3 < sum(moved) < len(moved) - 3


@pytest.mark.parametrize("rehearse", [False, True])
def test_gem_with_a_memory_shared_by_the_tasks_so_far(rehearse):
    kept, moved, sizes = EqualShares(17), [], set()
    hyper = gem.Hyper(
        step_size=STEP_SIZE, capacity=17, sharing="so_far", rehearse=rehearse
    )

    def grads_of(i, params, learner):
        task = i // LENGTH
        g, back = flat_grads(params, *current(i))
        if rehearse and task:
            places = stored(learner.extra[agem.SLOT], kept)
            old = picked(jax.random.fold_in(keys(i)[0], 0), places, tiny.BATCH)
            grads = oracle_replay.grads(
                params, current(i), (*examples(old), np.ones(tiny.BATCH)),
                weighting="union", r=1.0, tasks_before=task,
            )  # fmt: skip
            g = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(grads)])
        rows = [flat_grads(params, *examples(kept.of[k]))[0] for k in range(task)]
        sizes.add(tuple(len(kept.of[k]) for k in range(task)))
        kept.take_in(i)
        if task == 0:
            return back(g)
        used = oracle_gem.gem(g, np.stack(rows), margin=0.5, jitter=1e-3)
        moved.append(not np.array_equal(g, used))
        return back(used)

    compare(gem.make(NET, SPEC, hyper), grads_of)
    assert sizes == {(), (17,), (8, 8)}
    assert 3 < sum(moved) < len(moved) - 3


def test_gem_reads_no_example_of_another_task():
    """With batch normalisation, padding from elsewhere would change the statistics."""
    net = mlp.make(SPEC, widths=(8,), norm="batch")
    hyper = gem.Hyper(capacity=17, sharing="so_far")
    learner = gem.make(net, SPEC, hyper).init(tiny.KEY)
    rng = np.random.default_rng(0)
    memory = learner.extra[agem.SLOT]._replace(
        x=rng.normal(size=(17, tiny.INPUTS)).astype(np.float32),
        y=rng.integers(0, tiny.OUTPUTS, 17).astype(np.int32),
        task=np.arange(17, dtype=np.int32) % 2, filled=np.arange(17) < 15,
        in_play=np.ones(tiny.OUTPUTS, bool),
    )  # fmt: skip
    other = np.where(memory.task[:, None] == 1, 5.0 * memory.x, memory.x)
    clock = Clock(jnp.int32(0), jnp.int32(2), jnp.int32(0))

    def of(x):
        now = jax.tree.map(jnp.asarray, memory._replace(x=x))
        rows = gem.task_gradients(
            net, SPEC, tiny.KEY, clock, learner.net, now, gem.Portion(10, 2)
        )
        return jax.tree.map(lambda r: np.asarray(r[0]), rows)

    chex.assert_trees_all_equal(of(memory.x), of(other))
