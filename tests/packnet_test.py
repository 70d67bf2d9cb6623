"""PackNet: the oracle, what is frozen to the last bit, equal shares, bad input."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench.methods import packnet
from cl_bench.networks import mlp
from tests import task_run, tiny
from tests.reference import logits as by_logits
from tests.reference import mlp as oracle_mlp
from tests.reference import packnet as oracle
from tests.task_run import STEPS, TASKS

close = partial(chex.assert_trees_all_close, rtol=1e-5, atol=2e-6)
OWN = task_run.data(per_task=2)  # outputs 0 1, 2 3, 4 5
SPEC = task_run.spec(scenario="task", own_outputs=True, num_outputs=6)
NET = mlp.make(SPEC, widths=(8, 6))
SHARED_SPEC = task_run.spec()
SHARED_NET = mlp.make(SHARED_SPEC, widths=(8, 6))
ADAMW = {"optimizer": "adamw", "weight_decay": 0.1, "step_size": 0.01}


def made(**settings):
    return packnet.make(NET, SPEC, packnet.Hyper(**settings))


def owners(learner):
    return {n: np.asarray(o) for n, o in learner.extra["packnet"]["owner"].items()}


def predict(method, learner, task):
    """Logits of a task's first batches."""
    batch = jax.tree.map(jnp.asarray, tiny.at(tiny.at(OWN, task), 0))
    return np.asarray(tiny.quick_jit(method.predict)(learner, batch)[0])


def expected_run(data, first, fractions, *, prune_at, own_head, step_size):
    """The oracle's parameters after each step."""
    params, found = oracle_mlp.cast(first), []
    owner = oracle.blank(params)
    for task in range(TASKS):
        outputs = data.classes[task, 0, 0] if own_head else None
        for i in range(STEPS):
            if i == prune_at:
                for name in [n for n in params if not (own_head and n == "head")]:
                    kernel, owner[name] = oracle.divide(
                        params[name]["kernel"], owner[name], task, fractions[task]
                    )
                    params = {**params, name: {**params[name], "kernel": kernel}}
            grads = by_logits.masked_cross_entropy(
                params, data.x[task, i], data.y[task, i], data.classes[task, i]
            )
            params = oracle.sgd(
                params, grads, owner, task,
                divided=i >= prune_at, step_size=step_size, outputs=outputs,
            )  # fmt: skip
            found.append(params)
    return found


@pytest.mark.parametrize(
    ("settings", "fractions", "prune_at", "own_head"),
    [
        ({"prune_fraction": 0.6}, (0.6,) * 3, 13, True),
        ({"split": "even", "dense_share": 0.5}, (2 / 3, 1 / 2, 0.0), 10, True),
        ({"prune_fraction": 0.5}, (0.5,) * 3, 13, False),
    ],
)
def test_three_tasks_step_beside_the_oracle(settings, fractions, prune_at, own_head):
    spec, net = (SPEC, NET) if own_head else (SHARED_SPEC, SHARED_NET)
    data = OWN if own_head else task_run.data()
    method = packnet.make(net, spec, packnet.Hyper(step_size=0.1, **settings))
    tasks = task_run.run(method, data)
    expected = expected_run(
        data, method.init(tiny.KEY).net.params, fractions,
        prune_at=prune_at, own_head=own_head, step_size=0.1,
    )  # fmt: skip
    learners = [learner for task in tasks for learner in task.steps]
    for learner, params in zip(learners, expected, strict=True):
        close(learner.net.params, jax.tree.map(np.float32, params))


@pytest.mark.parametrize("head", ["own", "pack"])
def test_what_a_task_has_trained_never_moves_again(head):
    tasks = task_run.run(made(head=head, **ADAMW), OWN)
    for task in range(TASKS - 1):
        end, owner = tasks[task].end.net.params, owners(tasks[task].end)
        for later in [s for t in tasks[task + 1 :] for s in (*t.steps, t.end)]:
            for name, layer in end.items():
                frozen = np.broadcast_to(owner[name] <= task, layer["kernel"].shape)
                assert frozen.any()
                now = later.net.params[name]
                np.testing.assert_array_equal(
                    np.asarray(now["kernel"])[frozen],
                    np.asarray(layer["kernel"])[frozen],
                )
                if name != "head" or head == "pack":
                    np.testing.assert_array_equal(now["bias"], layer["bias"])


@pytest.mark.parametrize("head", ["own", "pack"])
def test_answers_of_ended_tasks_stay_to_the_last_bit(head):
    method = made(head=head, **ADAMW)
    tasks = task_run.run(method, OWN)
    for task in range(TASKS):
        after = predict(method, tasks[task].end, task)
        untrained = predict(method, tasks[task].start, task)
        assert np.abs(after - untrained).max() > 1e-3  # it did learn something
        for later in tasks[task + 1 :]:
            for learner in (later.start, later.steps[5], later.steps[-1], later.end):
                np.testing.assert_array_equal(predict(method, learner, task), after)


def test_the_task_that_trains_is_answered_by_the_network_that_trains():
    method = made()
    tasks = task_run.run(method, OWN)
    for task in range(TASKS):
        for learner in (tasks[task].steps[3], tasks[task].steps[-1]):
            batch = jax.tree.map(jnp.asarray, tiny.at(tiny.at(OWN, task), 0))
            plain = NET.apply(learner.net, batch.x, train=False, key=None)[0]
            found = predict(method, learner, task)
            own = slice(2 * task, 2 * task + 2)
            np.testing.assert_allclose(found[:, own], plain[:, own], rtol=1e-6)


def test_an_even_split_gives_all_tasks_as_many_weights():
    owner = owners(task_run.run(made(split="even"), OWN)[-1].end)
    for name in ("h1", "h2"):
        shares = [(owner[name] == task).sum() for task in range(TASKS)]
        assert sum(shares) == owner[name].size
        assert max(shares) - min(shares) <= 1
    np.testing.assert_array_equal(owner["head"], [0, 0, 1, 1, 2, 2])


def test_weights_out_of_use_are_not_counted():
    """Spare units: the fraction is of the weights that can act."""
    net = mlp.make(SPEC, widths=(8, 6), spare_units=4)
    method = packnet.make(net, SPEC, packnet.Hyper(prune_fraction=0.25))
    owner = owners(task_run.run(method, OWN)[0].end)["h2"]
    alive = owner[:8, :6]
    assert (alive == 0).sum() == 36
    assert (owner == 0).sum() == 36


def test_smallest_by_hand():
    kernel = jnp.array([[0.1, -0.5, 0.2], [-0.3, 0.05, jnp.nan]])
    free = jnp.array([[True, True, True], [True, False, True]])
    found = packnet.smallest(kernel, free, 0.4)
    np.testing.assert_array_equal(found, [[True, False, True], [False, False, False]])
    assert not np.any(packnet.smallest(kernel, free, 0.0))
    assert packnet.smallest(kernel, free, 1.0).sum() == 4  # what is broken stays so


def test_statistics_are_frozen_after_the_first_task():
    net = mlp.make(SPEC, widths=(8, 6), norm="batch")
    tasks = task_run.run(packnet.make(net, SPEC, packnet.Hyper()), OWN)
    stats = [t.end.net.stats for t in tasks]
    chex.assert_trees_all_equal(stats[0], stats[2])
    assert np.any(stats[0]["h1"]["mean"] != tasks[0].start.net.stats["h1"]["mean"])
    for leaf in ("scale", "shift"):
        found = [np.asarray(t.end.net.params["h1"][leaf]) for t in tasks]
        np.testing.assert_array_equal(found[0], found[2])


@pytest.mark.parametrize(
    ("settings", "changes", "message"),
    [
        ({"split": "equal"}, {}, "fixed, even"),
        ({"head": "train"}, {}, "auto, own, pack"),
        ({"dense_share": 1.0}, {}, "above 0 and below 1"),
        ({}, {"reset_head": True}, "set reset_head=False"),
        ({}, {"restore_best": 2}, "set best_validation=False"),
    ],
)
def test_bad_settings_are_refused(settings, changes, message):
    with pytest.raises(ValueError, match=message):
        packnet.make(NET, SPEC._replace(**changes), packnet.Hyper(**settings))
