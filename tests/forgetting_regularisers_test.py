"""EWC, SI, MAS and L2 to the previous task: oracles across tasks, and their limits."""

from functools import partial
from itertools import pairwise

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench.losses import squared_error
from cl_bench.methods import _anchors, backprop, ewc, l2_previous, mas, si
from tests import tiny
from tests.consolidation_setting import (
    NET,
    SPEC,
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

METHODS = {
    "ewc": (ewc, {}),
    "online ewc": (ewc, {"mode": "online"}),
    "si": (si, {}),
    "mas": (mas, {}),
    "l2_previous": (l2_previous, {}),
}


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


# ---- oracles, three tasks


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
    ("optimizer", "estimator"), [("sgd", "example"), ("adam", "batched")]
)
def test_mas(optimizer, estimator):
    first, before, _ = run(mas, optimizer=optimizer, strength=0.3, estimator=estimator)
    expected = Anchored(
        0.6, "online", 1.0,
        lambda params, task: oracle_mas.importance(params, task_batches(task), estimator),
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


# ---- limits


@pytest.mark.parametrize("name", METHODS)
def test_strength_0_is_fine_tuning_and_any_other_is_not(name):
    module, settings = METHODS[name]
    plain = run(backprop)[1].net.params
    off = run(module, strength=0.0, **settings)
    on = run(module, strength=1.0, **settings)
    chex.assert_trees_all_equal(off[1].net.params, plain)
    chex.assert_trees_all_equal(
        tiny.at(on[1].net.params, 0), tiny.at(plain, 0)
    )  # exactly 0 is added before a task has ended
    assert moved(tiny.at(on[1].net.params, 1), tiny.at(plain, 1)) > 1e-5
    weights = jax.tree.leaves(tiny.at(_anchors.of(on[2]).weight, 0))
    assert sum(np.abs(w).sum() for w in weights) > 0


@pytest.mark.parametrize("name", METHODS)
def test_a_larger_strength_holds_important_weights_ever_more(name):
    """Drift in task 2 of the weights of a tenth of the largest importance and more.

    Freezing is a limit of these only: SGD diverges where the step size times the pull
    of the most important weight (strength times importance, twice that where the penalty
    has no 1/2) exceeds 2. The largest strength here makes that product 1, and weights
    far less important still move.
    """
    module, settings = METHODS[name]
    walk_on = partial(run, module, steps=5000, **{**settings, "step_size": 2e-4})
    weight = tiny.at(_anchors.of(walk_on(strength=0.0)[2]).weight, 0)
    largest = max(leaf.max() for leaf in jax.tree.leaves(weight))
    # Of a penalty without 1/2, half of it: a step all the way back to the anchor.
    whole = (0.5 if module in (si, mas) else 1.0) / (2e-4 * largest)
    drifts = []
    for share in (0.0, 0.01, 0.1, 1.0):
        _, before, after = walk_on(strength=share * whole)
        trees = (weight, before.net.params, after.net.params)
        drifts.append(
            max(
                np.abs(p[1] - q[0])[f >= 0.1 * largest].max(initial=0)
                for f, p, q in zip(*map(jax.tree.leaves, trees), strict=True)
            )
        )
    assert all(a > b for a, b in pairwise(drifts)), drifts
    assert drifts[0] > 100 * drifts[-1] > 0, drifts


@pytest.mark.parametrize("module", [ewc, l2_previous])
def test_one_past_task_makes_separate_and_online_the_same(module):
    pairs = [
        run(module, strength=1.0, mode=mode)[1].net.params for mode in _anchors.MODES
    ]
    close(tiny.at(pairs[0], 1), tiny.at(pairs[1], 1))
    assert moved(tiny.at(pairs[0], 2), tiny.at(pairs[1], 2)) > 1e-5


def test_a_strength_of_1e10_does_not_drown_in_rounding():
    """Anchors of two equal ends: at the centre the pull is exactly 0."""
    after = run(l2_previous, mode="separate", strength=1e10, step_size=0.0)[2]
    learner = jax.tree.map(jnp.asarray, tiny.at(after, -1))
    transform = _anchors.pull(NET, 1e10)
    zeros = jax.tree.map(jnp.zeros_like, learner.net.params)
    pulled, _ = transform.update(
        tiny.KEY, tiny.clock(0), zeros, learner.net, _anchors.of(learner)
    )
    assert all(not leaf.any() for leaf in jax.tree.leaves(pulled))


@pytest.mark.parametrize(
    ("module", "settings", "message"),
    [
        (ewc, {"mode": "offline"}, "none of separate, online"),
        (ewc, {"estimator": "true"}, "none of exact, sampled"),
        (ewc, {"normalise": "mean"}, "none of None, 'trace'"),
        (ewc, {"fisher_examples": 0}, "fisher_examples=0: take 1 or more"),
        (mas, {"estimator": "exact"}, "none of example, batched"),
        (mas, {"importance_examples": -1}, "take 1 or more"),
        (l2_previous, {"mode": "sum"}, "none of separate, online"),
    ],
)
def test_settings_that_cannot_be(module, settings, message):
    with pytest.raises(ValueError, match=message):
        module.check(module.Hyper(**settings))
    with pytest.raises(ValueError, match=message):
        made(module, **settings)


def test_a_fisher_of_a_regression_is_refused_and_the_others_are_not():
    spec = SPEC._replace(loss=squared_error)
    with pytest.raises(ValueError, match="take the method mas, si or l2_previous"):
        made(ewc, spec=spec)
    for module in (mas, si, l2_previous):
        made(module, spec=spec)
