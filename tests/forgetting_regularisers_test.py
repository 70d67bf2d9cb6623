"""EWC, SI, MAS and L2 to the previous task: oracles across three tasks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench.methods import _anchors, backprop, ewc, l2_previous, mas, si
from tests import tiny
from tests.consolidation_setting import (
    close,
    data,
    made,
    moved,
    oracle_run,
    run,
    task_batches,
    train_of,
)
from tests.reference import ewc as oracle
from tests.reference import mas as oracle_mas
from tests.reference import si as oracle_si
from tests.reference.mlp import map_params


class Anchored:
    """The oracle of quadratic penalties, with `importance(params, task)`."""

    def __init__(self, strength, mode, gamma, importance):
        self.strength, self.mode, self.gamma = strength, mode, gamma
        self.importance, self.anchors = importance, []

    def step(self, params, grads, opt, optimizer):
        return oracle.step(
            params, grads, opt, self.anchors,
            optimizer=optimizer, strength=self.strength,
        )  # fmt: skip

    def end_task(self, params, task):
        self.anchors = oracle.end_task(
            params, self.importance(params, task), self.anchors,
            mode=self.mode, gamma=self.gamma,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("optimizer", "settings"),
    [
        ("sgd", {"mode": "separate"}),
        ("sgd", {"mode": "online", "gamma": 0.7}),
        ("adam", {"mode": "online", "gamma": 0.7, "estimator": "empirical"}),
        ("adam", {"estimator": "batched", "normalise": "trace"}),
    ],
    ids=["separate", "online", "online empirical", "batched by trace"],
)
def test_ewc(optimizer, settings):
    estimator = settings.get("estimator", "exact")

    def importance(params, task):
        found = oracle.fisher(params, task_batches(task), estimator)
        return oracle.by_trace(found) if "normalise" in settings else found

    strength = 30.0 if "normalise" in settings else 3.0
    first, before, _ = run(ewc, optimizer=optimizer, strength=strength, **settings)
    expected = Anchored(
        strength,
        settings.get("mode", "separate"),
        settings.get("gamma", 1.0),
        importance,
    )
    close(
        before.net.params,
        oracle_run(optimizer, first, expected.step, expected.end_task),
    )
    plain = run(backprop, optimizer=optimizer)[1].net.params
    assert moved(tiny.at(plain, -1), tiny.at(before.net.params, -1)) > 1e-3
    close(tiny.at(plain, 0), tiny.at(before.net.params, 0))


@pytest.mark.parametrize(("optimizer", "clamp"), [("sgd", False), ("adam", True)])
def test_si(optimizer, clamp):
    first, before, after = run(
        si, optimizer=optimizer, strength=2.0, xi=0.1, clamp=clamp
    )
    state = oracle_si.init(first.net.params)

    def step(params, grads, opt, optimizer):
        nonlocal state
        params, opt, state = oracle_si.step(
            params, grads, opt, state, optimizer=optimizer, strength=2.0
        )
        return params, opt

    def end_task(params, task):
        nonlocal state
        state = oracle_si.end_task(params, state, xi=0.1, clamp=clamp)

    close(before.net.params, oracle_run(optimizer, first, step, end_task))
    omega = tiny.at(_anchors.of(after).weight, -1)
    close(omega, jax.tree.map(np.float32, state["omega"]), rtol=1e-4)


@pytest.mark.parametrize("clamp", [False, True])
def test_a_path_that_went_up_the_loss(clamp):
    """omega = -0.3 and 0.3, no way from start to end: Omega = omega / xi."""
    method = made(si, xi=0.1, clamp=clamp)

    @tiny.quick_jit
    def ended():
        learner = method.init(tiny.KEY)
        signs = jax.tree.map(lambda p: jnp.where(p > 0, 0.3, -0.3), learner.net.params)
        own = {**learner.extra, "path": signs}
        train = train_of(tiny.at(data(), 0))
        return method.end_task(
            tiny.KEY, tiny.clock(9), train, learner._replace(extra=own)
        )

    done = ended()
    expected = jax.tree.map(
        lambda p: np.where(p > 0, 3.0, 0.0 if clamp else -3.0).astype(np.float32),
        done.net.params,
    )
    close(_anchors.of(done).weight, expected)


@pytest.mark.parametrize(
    ("optimizer", "estimator", "outputs"),
    [
        ("sgd", "example", "sum"),
        ("adam", "batched", "sum"),
        ("sgd", "example", "mean"),
        ("sgd", "batched", "mean"),
    ],
)
def test_mas(optimizer, estimator, outputs):
    options = {"estimator": estimator, "outputs": outputs}
    first, before, _ = run(mas, optimizer=optimizer, strength=0.3, **options)
    expected = Anchored(
        0.6, "online", 1.0,
        lambda params, task: oracle_mas.importance(
            params, task_batches(task), estimator, outputs=outputs
        ),
    )  # fmt: skip
    close(
        before.net.params,
        oracle_run(optimizer, first, expected.step, expected.end_task),
    )


@pytest.mark.parametrize("mode", _anchors.MODES)
def test_l2_previous(mode):
    first, before, after = run(l2_previous, strength=0.5, mode=mode)

    def importance(params, task):
        # One anchor of weight 1, whatever the number of tasks: nothing is added up.
        return map_params(np.ones_like, params)

    expected = Anchored(0.5, mode, 1.0, importance)

    def end_task(params, task):
        if mode == "online":
            expected.anchors = []
        expected.end_task(params, task)

    close(before.net.params, oracle_run("sgd", first, expected.step, end_task))
    weight = _anchors.of(after).weight["head"]["bias"]
    assert weight[-1, 0] == (3 if mode == "separate" else 1)
