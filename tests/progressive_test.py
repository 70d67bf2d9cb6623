"""Progressive networks: the oracle, what is frozen, the limits, and bad input."""

from functools import cache, partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench.methods import _laterals, backprop, independent, progressive
from cl_bench.networks import cnn, mlp
from tests import task_run, tiny
from tests.reference import mlp as oracle_mlp
from tests.reference import optimizers as oracle_optimizers
from tests.reference import progressive as oracle
from tests.task_run import OWN, STEPS, TASKS, close
from tests.task_run import OWN_NET as NET
from tests.task_run import OWN_SPEC as SPEC

CASES: dict[str, dict[str, Any]] = {
    "linear": {"laterals": "linear", "step_size": 0.05},
    "adapter": {
        "laterals": "adapter", "alpha_std": 0.7, "optimizer": "adam",
        "step_size": 0.01, "lateral_step_scale": 0.5, "lateral_init_scale": 0.8,
    },
}  # fmt: skip
DECAYED: dict[str, Any] = {
    "laterals": "adapter", "optimizer": "adamw", "weight_decay": 0.1,
    "step_size": 0.01, "alpha_std": 0.7,
}  # fmt: skip


def made(name):
    return progressive.make(NET, SPEC, progressive.Hyper(**CASES[name]))


@cache
def run(name):
    """The tasks of one case."""
    return task_run.run(made(name), OWN)


@cache
def crelu():
    """A network with two features a unit and statistics."""
    return mlp.make(SPEC, widths=(5, 4), activation="crelu", norm="batch")


def row_of(learner, k):
    """The oracle's laterals of the column that trains: its first k places."""
    row = learner.extra["progressive"]["moving"]["laterals"]
    made = {}
    for name in row.pairs:
        pairs = {leaf: np.float64(v[:k]) for leaf, v in row.pairs[name].items()}
        column = {leaf: np.float64(v) for leaf, v in row.column[name].items()}
        made[name] = pairs | column
    return made


def start_of(learner, k):
    return oracle_mlp.cast(learner.net.params), row_of(learner, k) if k else {}


@pytest.mark.parametrize("name", CASES)
def test_three_tasks_step_beside_the_oracle(name):
    hyper, tasks = progressive.Hyper(**CASES[name]), run(name)
    kind = "sgd" if name == "linear" else "adam"
    init = getattr(oracle_optimizers, f"init_{kind}")
    sizes = hyper.step_size, hyper.step_size * hyper.lateral_step_scale
    update, own_update = (
        partial(getattr(oracle_optimizers, kind), step_size=size) for size in sizes
    )
    columns, laterals = [], []
    for k, done in enumerate(tasks):
        params, into = start_of(done.start, k)
        state, own_state = init(params), init(into)
        for i in range(STEPS):
            grads, by_lateral = oracle.gradients(
                [*columns, params], [*laterals, into],
                OWN.x[k, i], OWN.y[k, i], OWN.classes[k, i],
            )  # fmt: skip
            params, state = update(params, grads, state)
            into, own_state = own_update(into, by_lateral, own_state)
            close(done.steps[i].net.params, jax.tree.map(np.float32, params))
            if k:
                close(row_of(done.steps[i], k), into)
        columns, laterals = [*columns, params], [*laterals, into]
    predict = tiny.quick_jit(made(name).predict)
    for k in range(TASKS):
        batch = jax.tree.map(jnp.asarray, tiny.at(tiny.at(OWN, k), 3))
        logits = oracle.run(columns[: k + 1], laterals[: k + 1], OWN.x[k, 3])[0]
        found = predict(tasks[-1].end, batch)[0]
        close(found[batch.classes], np.float32(logits[OWN.classes[k, 3]]))


def test_the_first_task_is_backprop():
    hyper = backprop.Hyper(step_size=CASES["linear"]["step_size"])
    plain = backprop.make(NET, SPEC, hyper)
    _, learners, _ = tiny.run(plain, tiny.at(OWN, 0))
    tasks = run("linear")
    for i in (0, STEPS - 1):
        chex.assert_trees_all_close(
            tasks[0].steps[i].net.params, tiny.at(learners.net.params, i),
            rtol=1e-6, atol=1e-7,
        )  # fmt: skip


@pytest.mark.parametrize("name", ["linear", "crelu"])
def test_answers_of_ended_tasks_stay_to_the_last_bit(name):
    if name == "linear":
        tasks, method = run(name), made(name)
    else:
        method = progressive.make(crelu(), SPEC, progressive.Hyper(**DECAYED))
        tasks = task_run.run(method, OWN)
    predict = tiny.quick_jit(method.predict)
    for task in range(TASKS):
        batch = jax.tree.map(jnp.asarray, tiny.at(tiny.at(OWN, task), 0))
        after = predict(tasks[task].end, batch)[0]
        assert np.abs(after - predict(tasks[task].start, batch)[0]).max() > 1e-2
        for later in tasks[task + 1 :]:
            for learner in (later.start, later.steps[9], later.end):
                chex.assert_trees_all_equal(predict(learner, batch)[0], after)


def test_without_connections_it_is_independent_networks():
    optim = {"optimizer": "adam", "step_size": 0.01}
    off = {"lateral_init_scale": 0.0, "lateral_step_scale": 0.0}
    apart = progressive.make(NET, SPEC, progressive.Hyper(**optim, **off))
    alone = independent.make(NET, SPEC, independent.Hyper(**optim))
    for found, expected in zip(
        task_run.run(apart, OWN), task_run.run(alone, OWN), strict=True
    ):
        chex.assert_trees_all_equal(found.start.net.params, expected.start.net.params)
        chex.assert_trees_all_close(
            found.end.net.params, expected.end.net.params, rtol=1e-6, atol=1e-7
        )


@pytest.mark.parametrize("name", CASES)
def test_a_new_column_reads_and_trains_its_connections(name):
    tasks, predict = run(name), tiny.quick_jit(made(name).predict)
    for k in (1, 2):
        before, after = (row_of(t, k) for t in (tasks[k].start, tasks[k].end))
        for module in ("h2", "head"):
            for leaf, value in before[module].items():
                assert np.abs(after[module][leaf] - value).max() > 1e-3
    rest = tasks[1].end.extra["progressive"]["moving"]["laterals"].pairs
    for leaf in jax.tree.leaves(rest):
        assert not np.any(leaf[1:])  # there is no second column yet
    # Column 2 hears of column 1 through its connections alone.
    end = tasks[2].end
    own = end.extra["progressive"]
    batch = jax.tree.map(jnp.asarray, tiny.at(tiny.at(OWN, 2), 0))
    params = jax.tree.map(jnp.asarray, own["columns"]["params"])
    kernel = params["h1"]["kernel"]
    params["h1"] = {**params["h1"], "kernel": kernel.at[1].multiply(-1.0)}
    changed = {**own, "columns": {**own["columns"], "params": params}}
    other = end._replace(extra={"progressive": changed})
    assert np.abs(predict(end, batch)[0] - predict(other, batch)[0]).max() > 1e-3
    first = batch._replace(task=jnp.zeros_like(batch.task))
    chex.assert_trees_all_equal(predict(end, first)[0], predict(other, first)[0])


def test_a_task_that_has_not_been_trained_is_answered_by_its_initial_column():
    method, tasks = made("linear"), run("linear")
    batch = jax.tree.map(jnp.asarray, tiny.at(tiny.at(OWN, 2), 0))
    table = independent.make(NET, SPEC, independent.Hyper()).init(tiny.KEY)
    initial = tiny.at(table.extra["independent"]["table"]["params"], 2)
    state = table.net._replace(params=initial)
    plain = NET.apply(state, batch.x, train=False, key=None)[0]
    for learner in (method.init(tiny.KEY), tasks[0].end, tasks[1].steps[5]):
        found = method.predict(learner, batch)[0]
        close(found[batch.classes], plain[batch.classes])


def test_what_a_column_gives_is_what_its_own_layers_read():
    net = crelu()
    learner = progressive.make(net, SPEC, progressive.Hyper()).init(tiny.KEY)
    own, x = learner.extra["progressive"], jnp.asarray(OWN.x[0, 0])
    inputs = _laterals.earlier(
        net, own["columns"], own["laterals"], jnp.int32(1), learner.net, x
    )
    logits = net.apply(learner.net, x, train=False, key=None)[0]
    head = learner.net.params["head"]
    close(inputs["head"][0] @ head["kernel"] + head["bias"], logits)
    assert not np.any(inputs["head"][1])


def test_a_single_task_and_a_head_that_is_reset():
    spec = SPEC._replace(num_tasks=1, reset_head=True)
    method = progressive.make(NET, spec, progressive.Hyper())
    learner = method.init(tiny.KEY)
    batch = jax.tree.map(jnp.asarray, tiny.at(tiny.at(OWN, 0), 0))
    zeros = jax.tree.map(jnp.zeros_like, learner.net.params["head"])
    state = learner.net._replace(params={**learner.net.params, "head": zeros})
    learner = learner._replace(net=state)
    learner = method.start_task(tiny.KEY, tiny.clock(0), lambda i: batch, learner)
    chex.assert_trees_all_equal(learner.net.params["head"], zeros)
    assert not np.any(method.predict(learner, batch)[0][batch.classes])


@pytest.mark.parametrize(
    ("settings", "changes", "widths", "message"),
    [
        ({"laterals": "sum"}, {}, (4,), "none of linear, adapter"),
        ({}, {}, (), "has none"),
        ({}, {"restore_best": 2}, (4,), "set best_validation=False"),
        ({}, {"num_tasks": 70}, (1000, 1000), "9.3 GiB.* at most 64 tasks"),
        (
            {"laterals": "adapter"},
            {"num_tasks": 3000},
            (100, 50),
            "at most [0-9]+ tasks",
        ),
    ],
)
def test_bad_settings_are_refused(settings, changes, widths, message):
    spec = SPEC._replace(**changes)
    with pytest.raises(ValueError, match=message):
        net = mlp.make(spec, widths=widths)
        progressive.make(net, spec, progressive.Hyper(**settings))


def test_a_convolution_is_refused():
    spec = SPEC._replace(input_shape=(6, 6, 1))
    net = cnn.make(spec, channels=(4,), kernels=(3,), dense=(5,))
    with pytest.raises(ValueError, match="kernel of 4 axes: take the network mlp"):
        progressive.make(net, spec, progressive.Hyper())
