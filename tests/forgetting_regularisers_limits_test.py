"""EWC, SI, MAS and L2 to the previous task: their limits, and what is refused."""

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
from tests.consolidation_setting import NET, SPEC, close, made, moved, run

METHODS = {
    "ewc": (ewc, {}),
    "online ewc": (ewc, {"mode": "online"}),
    "si": (si, {}),
    "mas": (mas, {}),
    "l2_previous": (l2_previous, {}),
}


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
        (mas, {"outputs": "max"}, "none of sum, mean"),
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
