"""HAT: the oracle, the mask equation, what is protected to the last bit, bad input."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench.methods import hat
from cl_bench.networks import mlp
from tests import task_run, tiny
from tests.reference import hat as oracle
from tests.reference import mlp as oracle_mlp
from tests.task_run import STEPS, TASKS

close = partial(chex.assert_trees_all_close, rtol=1e-5, atol=5e-6)
EPOCH = 5  # steps
OWN = task_run.data(per_task=2)  # outputs 0 1, 2 3, 4 5
SHORT = {"examples_per_task": EPOCH * tiny.BATCH}
SPEC = task_run.spec(scenario="task", own_outputs=True, num_outputs=6, **SHORT)
NET = mlp.make(SPEC, widths=(8, 6))
SHARED_SPEC = task_run.spec(**SHORT)
SHARED_NET = mlp.make(SHARED_SPEC, widths=(8, 6))


def of_task(learner, task):
    """The embeddings of a task."""
    table = learner.extra["hat"]["embedding"]
    return {name: np.asarray(rows[task], np.float64) for name, rows in table.items()}


def expected_run(data, first, hyper, own_head):
    """The oracle's (parameters, embedding of the task) after each step."""
    params, found = oracle_mlp.cast(first.net.params), []
    used = {"h1": np.zeros(8), "h2": np.zeros(6)}
    s_max, size = hyper.max_sharpness, hyper.step_size
    for task in range(TASKS):
        e = of_task(first, task)
        factor = oracle.multipliers(params, used, task)
        if own_head:
            factor["head"] = {"kernel": np.ones((6, 6)), "bias": np.ones(6)}
        for i in range(STEPS):
            s = oracle.sharpness(i % EPOCH, EPOCH, s_max)
            open_ = {name: oracle_mlp.sigmoid(s * value) for name, value in e.items()}
            grads, by_gate = oracle.gradients(
                params, open_, data.x[task, i], data.y[task, i], data.classes[task, i]
            )
            _, added = oracle.crowding(open_, used)
            by_gate = {n: g + hyper.sparsity * added[n] for n, g in by_gate.items()}
            by_e = oracle.compensated(by_gate, e, s, s_max)
            e = {n: np.clip(e[n] - size * g, -6, 6) for n, g in by_e.items()}
            params = oracle_mlp.map_params(
                lambda p, g, f: p - size * f * g, params, grads, factor
            )
            found.append((params, e))
        used = {n: np.maximum(u, oracle_mlp.sigmoid(s_max * e[n]))
                for n, u in used.items()}  # fmt: skip
    return found


@pytest.mark.parametrize(
    ("settings", "own_head"),
    [
        ({"max_sharpness": 3.0, "sparsity": 0.5}, True),
        ({"max_sharpness": 25.0}, True),
        ({"max_sharpness": 3.0, "sparsity": 0.1}, False),
    ],
)
def test_three_tasks_step_beside_the_oracle(settings, own_head):
    spec, net = (SPEC, NET) if own_head else (SHARED_SPEC, SHARED_NET)
    data = OWN if own_head else task_run.data()
    hyper = hat.Hyper(step_size=0.05, **settings)
    method = hat.make(net, spec, hyper)
    tasks = task_run.run(method, data)
    expected = expected_run(data, method.init(tiny.KEY), hyper, own_head)
    for n, (params, e) in enumerate(expected):
        learner = tasks[n // STEPS].steps[n % STEPS]
        close(learner.net.params, jax.tree.map(np.float32, params))
        found = of_task(learner, n // STEPS)
        close(found, e, rtol=1e-5, atol=2e-5)


def test_the_multipliers_are_those_of_the_equation():
    rng = np.random.default_rng(0)
    params = NET.init(tiny.KEY).params
    used = {"h1": rng.uniform(size=8), "h2": rng.uniform(size=6)}
    for task in (0, 1):
        past = used if task else {name: np.zeros_like(u) for name, u in used.items()}
        found = hat.protection(
            NET, params, jax.tree.map(jnp.float32, past), jnp.float32(task)
        )
        expected = oracle.multipliers(oracle_mlp.cast(params), past, task)
        full = jax.tree.map(lambda f, p: jnp.broadcast_to(f, p.shape), found, params)
        close(full, jax.tree.map(np.float32, expected), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("s", [1 / 400, 1.0, 13.0])
def test_the_compensated_slope_is_the_papers(s):
    e = np.linspace(-6, 6, 31)
    plain = oracle.compensated({"h": np.ones(31)}, {"h": e}, s, 400.0)["h"]
    found = hat.slope(jnp.float32(e), s, 400.0)
    np.testing.assert_allclose(found, plain, rtol=1e-3, atol=1e-6)


def test_sharpness_runs_over_each_epoch():
    found = [float(hat.sharpness(jnp.int32(i), 5, 8.0)) for i in range(5)]
    np.testing.assert_allclose(found, np.linspace(1 / 8, 8, 5), rtol=1e-6)
    assert hat.sharpness(jnp.int32(0), 1, 8.0) == 8.0


def test_crowding_by_hand():
    open_ = {"a": jnp.array([1.0, 0.5]), "b": jnp.array([0.2])}
    used = {"a": jnp.array([0.5, 0.0]), "b": jnp.array([1.0])}
    close(hat.crowding(open_, used, {}), jnp.float32((0.5 + 0.5) / 1.5))
    alive = {"a": jnp.array([True, False])}
    close(hat.crowding(open_, used, alive), jnp.float32(1.0))
    full = {"a": jnp.ones(2), "b": jnp.ones(1)}
    assert hat.crowding(open_, full, {}) == 0.0


def snapped(**settings):
    """HAT whose gates end each task at exactly 0 or 1."""
    method = hat.make(NET, SPEC, hat.Hyper(**settings))

    def end_task(key, clock, train, learner):
        own = learner.extra["hat"]
        table = {
            name: rows.at[clock.task].set(jnp.where(rows[clock.task] > 0, 6.0, -6.0))
            for name, rows in own["embedding"].items()
        }
        learner = learner._replace(extra={"hat": {**own, "embedding": table}})
        return method.end_task(key, clock, train, learner)

    return method._replace(end_task=end_task)


@pytest.mark.parametrize(
    "settings",
    [{}, {"optimizer": "adamw", "weight_decay": 0.1, "step_size": 0.01}],
    ids=["sgd", "adamw"],
)
def test_answers_of_ended_tasks_stay_to_the_last_bit(settings):
    method = snapped(sparsity=0.01, **settings)
    tasks = task_run.run(method, OWN)
    predict = tiny.quick_jit(method.predict)
    for task in range(TASKS):
        batch = jax.tree.map(jnp.asarray, tiny.at(tiny.at(OWN, task), 0))
        before = predict(tasks[task].start, batch)[0]
        after = predict(tasks[task].end, batch)[0]
        assert np.abs(after - before).max() > 1e-3
        for later in tasks[task + 1 :]:
            chex.assert_trees_all_equal(predict(later.end, batch)[0], after)
    last = tasks[-1]
    moved = np.abs(last.end.net.params["h1"]["kernel"]
                   - last.start.net.params["h1"]["kernel"])  # fmt: skip
    used = np.asarray(last.start.extra["hat"]["used"]["h1"])
    assert set(used) == {0.0, 1.0}
    assert moved[:, used == 0.0].max() > 1e-4
    assert moved[:, used == 1.0].max() == 0.0


def test_a_prediction_takes_the_gates_of_each_example():
    method = hat.make(NET, SPEC, hat.Hyper(max_sharpness=5.0))
    learner = method.init(tiny.KEY)
    batch = jax.tree.map(jnp.asarray, tiny.at(tiny.at(OWN, 0), 0))
    tasks = jnp.array([0, 1, 2, 1])
    mixed = method.predict(learner, batch._replace(task=tasks))[0]
    for i, task in enumerate(tasks):
        alone = method.predict(learner, batch._replace(task=jnp.full(4, task)))[0]
        close(mixed[i], alone[i])
    assert np.abs(mixed[1] - method.predict(learner, batch)[0][1]).max() > 1e-3


def test_more_sparsity_uses_fewer_units():
    def open_units(sparsity):
        hyper = hat.Hyper(sparsity=sparsity)
        end = task_run.run(hat.make(NET, SPEC, hyper), OWN)[0].end
        return sum(float(np.sum(u)) for u in end.extra["hat"]["used"].values())

    assert open_units(4.0) < 0.5 * open_units(0.0)


def test_the_embeddings_of_other_tasks_stay():
    method = hat.make(NET, SPEC, hat.Hyper(optimizer="adamw", weight_decay=0.1))
    tasks = task_run.run(method, OWN)
    first = method.init(tiny.KEY).extra["hat"]["embedding"]
    middle = tasks[1].end.extra["hat"]["embedding"]
    for name, rows in tasks[2].end.extra["hat"]["embedding"].items():
        np.testing.assert_array_equal(rows[:2], middle[name][:2])
        np.testing.assert_array_equal(middle[name][2], first[name][2])
        assert np.any(rows[2] != first[name][2])


@pytest.mark.parametrize(
    ("settings", "changes", "widths", "message"),
    [
        ({"head": "free"}, {}, (4,), "auto, own, protect"),
        ({}, {}, (), "has none"),
        ({}, {"reset_head": True}, (4,), "set reset_head=False"),
        ({}, {"restore_best": 2}, (4,), "set best_validation=False"),
    ],
)
def test_bad_settings_are_refused(settings, changes, widths, message):
    spec = SPEC._replace(**changes)
    with pytest.raises(ValueError, match=message):
        hat.make(mlp.make(spec, widths=widths), spec, hat.Hyper(**settings))
