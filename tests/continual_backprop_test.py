"""Properties of generate-and-test; its numbers are in exactness_test.py."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cl_bench import units
from cl_bench.methods import backprop, continual_backprop
from cl_bench.networks import mlp
from cl_bench.types import Signals
from tests import tiny

WIDTHS = (8, 8, 6)
NET = mlp.make(tiny.SPEC, widths=WIDTHS)
LAYER = np.repeat(np.arange(len(WIDTHS)), WIDTHS)


def make(net=NET, **settings):
    hyper = continual_backprop.Hyper(**{"maturity_threshold": 4, **settings})
    return continual_backprop.make(net, tiny.SPEC, hyper)


def run(method, data):
    """First learner, learners after every step, and their generate-and-test states."""
    first, learners, _ = tiny.run(method, data)
    return first, learners, learners.extra["transform_0"]


def per_layer(values):
    """[steps, sum of U] -> [steps, layers], added up."""
    return np.stack([values[:, LAYER == i].sum(axis=1) for i in range(3)], axis=1)


def test_rate_zero_is_backprop_bit_by_bit():
    settings = {"optimizer": "momentum", "step_size": 0.01}
    plain = backprop.make(NET, tiny.SPEC, backprop.Hyper(**settings))
    tracking = make(replacement_rate=0.0, **settings)
    data, learners = tiny.batches(4), [plain.init(tiny.KEY), tracking.init(tiny.KEY)]
    for i in range(4):  # not jitted: one operation at a time
        inputs = tiny.step_key(i), tiny.clock(i), tiny.at(data, i)
        learners = [
            method.step(*inputs, learner)[0]
            for method, learner in zip([plain, tracking], learners, strict=True)
        ]
    chex.assert_trees_all_equal(learners[0].net, learners[1].net)
    chex.assert_trees_all_equal(learners[0].opt, learners[1].opt)


def test_rate_zero_is_backprop_over_200_compiled_steps():
    plain = backprop.make(NET, tiny.SPEC, backprop.Hyper())
    data = jax.tree.map(jnp.asarray, tiny.batches(200))

    @jax.jit
    def final(xs):
        def body(running, inputs):
            i, batch = inputs
            at = tiny.step_key(i), tiny.clock(i), batch
            return tuple(
                method.step(*at, learner)[0]
                for method, learner in zip(methods, running, strict=True)
            ), None

        first = tuple(method.init(tiny.KEY) for method in methods)
        return jax.lax.scan(body, first, (jnp.arange(200, dtype=jnp.int32), xs))[0]

    methods = (plain, make(replacement_rate=0.0))
    expected, found = final(data)
    chex.assert_trees_all_close(found.net.params, expected.net.params, atol=1e-6)


def test_a_replacement_takes_away_nothing_but_the_units_own_output():
    # At step size 0 nothing else moves.
    data = tiny.batches(40)
    method = make(step_size=0.0, replacement_rate=1 / 16)
    first, learners, own = run(method, data)
    before = jax.tree.map(lambda a, b: np.concatenate([a[None], b]), first, learners)

    @jax.jit
    @jax.vmap
    def outputs(old, new, x, kept):
        gates = {u.name: kept[LAYER == i] for i, u in enumerate(NET.units)}
        expected = NET.apply(old, x, train=False, key=None, gates=gates)[0]
        return expected, NET.apply(new, x, train=False, key=None)[0]

    gone = own.age == 0
    assert (per_layer(gone).sum(axis=0) > 3).all()
    old = jax.tree.map(lambda leaf: leaf[:-1], before.net)
    expected, found = outputs(old, learners.net, data.x, 1.0 - gone)
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-6)


def test_on_a_constant_input_compensation_keeps_the_function():
    data = tiny.batches(1, size=1)
    data = jax.tree.map(lambda leaf: np.repeat(leaf, 40, axis=0), data)
    settings = {"step_size": 0.0, "replacement_rate": 1 / 16, "decay": 0.5}
    for compensate in (True, False):
        method = make(compensate_bias=compensate, **settings)
        _, _, signals = tiny.run(method, data)
        moved = np.abs(signals.logits - signals.logits[0]).max()
        assert (moved < 1e-4) == compensate, moved


@pytest.mark.parametrize("accumulate", [True, False])
def test_a_unit_is_safe_for_exactly_m_updates(accumulate):
    # At rate 1 whoever may be replaced is.
    method = make(replacement_rate=1.0, max_replaced=8, accumulate=accumulate)
    _, _, own = run(method, tiny.batches(15))
    expected = np.tile([1, 2, 3, 4, 0], 3)[:, None] * np.ones(sum(WIDTHS))
    np.testing.assert_array_equal(own.age, expected)


def eligible(own, maturity):
    before = np.concatenate([np.zeros((1, sum(WIDTHS))), own.age[:-1]])
    return per_layer(before + 1 > maturity)


def test_in_the_long_run_the_rate_is_kept_and_maturity_brings_no_burst():
    rate, maturity = 1 / 64, 20
    method = make(replacement_rate=rate, maturity_threshold=maturity)
    _, _, own = run(method, tiny.batches(200))
    gone = per_layer(own.age == 0)
    due = np.cumsum(rate * eligible(own, maturity), axis=0)
    np.testing.assert_array_equal(np.cumsum(gone, axis=0) + own.owed, due)
    assert (own.owed[:maturity] == 0).all() and (own.owed < 1).all()
    np.testing.assert_array_equal(own.owed[maturity], rate * np.array(WIDTHS))
    assert gone.max() == 1 and (gone.sum(axis=0) >= 8).all()


def test_probabilistic_replacement_keeps_the_rate_on_average():
    rate = 1 / 32
    totals, expected = 0.0, 0.0
    for variant in ("released", "nature"):
        method = make(replacement_rate=rate, accumulate=False, variant=variant)
        _, _, own = run(method, tiny.batches(300))
        totals = totals + per_layer(own.age == 0).sum()
        expected = expected + rate * eligible(own, 4).sum()
        assert (own.owed == 0).all()
    assert abs(totals - expected) < 4 * np.sqrt(expected), (totals, expected)


def test_what_max_replaced_holds_back_stays_owed():
    method = make(replacement_rate=1 / 4, max_replaced=1)
    _, _, own = run(method, tiny.batches(30))
    assert per_layer(own.age == 0).max() == 1
    due = np.cumsum(0.25 * eligible(own, 4), axis=0)
    gone = np.cumsum(per_layer(own.age == 0), axis=0)
    np.testing.assert_array_equal(gone + own.owed, due)
    assert own.owed[-1].max() > 2


def generate_and_test(net, learner, own, key=tiny.KEY, **settings):
    """One update of the transform alone, with all activations at 0."""
    acts = {u.name: jnp.zeros((1, u.size)) for u in net.units}
    signals = Signals(jnp.zeros(()), jnp.zeros((1, 4)), acts, (), ())
    hyper = continual_backprop.Hyper(**settings)
    update = continual_backprop.replace_units(net, hyper).update
    return tiny.quick_jit(lambda state, own: update(key, tiny.clock(0), signals, state, own))(
        learner.net, own
    )[:2]  # fmt: skip


def test_the_rank_is_that_of_the_corrected_utility():
    net = mlp.make(tiny.SPEC, widths=(3,))
    learner = make(net).init(tiny.KEY)
    own = learner.extra["transform_0"]._replace(
        utility=jnp.array([0.1, 0.5, 0.9]),  # corrected: 0.1 / (1 - 0.99^6) = 1.7
        age=jnp.array([5.0, 1000.0, 1000.0]),
        owed=jnp.array([1.0]),
    )
    for variant, expected in [("released", [6, 0, 1001]), ("nature", [0, 1001, 1001])]:
        _, after = generate_and_test(
            net, learner, own, variant=variant, utility="contribution",
            maturity_threshold=4, replacement_rate=1e-3,
        )  # fmt: skip
        np.testing.assert_array_equal(after.age, expected)


def test_a_new_unit_comes_from_the_networks_own_initialiser():
    learner = make().init(tiny.KEY)
    own = learner.extra["transform_0"]
    own = own._replace(age=own.age + 9, owed=own.owed + 2.0)
    shifted = jax.tree.map(lambda p: p + 1.0, learner.net.params)
    net, after = generate_and_test(
        NET, learner._replace(net=learner.net._replace(params=shifted)), own,
        maturity_threshold=4, max_replaced=2, replacement_rate=0.0,
    )  # fmt: skip
    keys = jax.random.split(jax.random.fold_in(tiny.KEY, 2), 3)
    for i, (unit, key) in enumerate(zip(NET.units, keys, strict=True)):
        gone = np.flatnonzero(after.age[LAYER == i] == 0)
        kernel = np.asarray(net.params[unit.name]["kernel"])
        fresh = np.asarray(NET.columns(key, unit.name, 2))
        np.testing.assert_array_equal(gone, [0, 1])  # of equals the first
        chex.assert_trees_all_close(kernel[:, gone], fresh, atol=2e-7)
        np.testing.assert_array_equal(net.params[unit.name]["bias"][gone], 0.0)
        kept = np.setdiff1d(np.arange(unit.size), gone)
        above = net.params[unit.outgoing[0]]["kernel"]
        rows = above[:, 2:] if i < 2 else above  # its own first two were redrawn
        np.testing.assert_array_equal(rows[gone], 0.0)
        assert (rows[kept] != 0).all()


def test_units_out_of_use_are_left_alone_and_start_young():
    net = mlp.make(tiny.SPEC, widths=(3,), spare_units=2)
    method = make(net, replacement_rate=1 / 4)
    constrained = method._replace(  # as the runner does it: all their weights are 0
        init=lambda key: units.constrain(method.init(key), net.units)
    )
    _, learners, own = run(constrained, tiny.batches(30))
    assert (own.age[:, 3:] == 0).all() and (own.age[:, :3] > 0).any()
    assert np.isfinite(own.utility).all()
    assert (learners.net.params["h1"]["kernel"][:, :, 3:] == 0).all()
    assert (learners.net.params["head"]["kernel"][:, 3:] == 0).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"utility": "contributions"}, "utility='contributions' is none of"),
        ({"variant": "arxive"}, "variant='arxive' is none of released"),
        ({"count": "all"}, "count='all' is none of eligible, total"),
        ({"moment_reset": "moments+count"}, "aged_adam"),
        ({"max_replaced": 0}, "at least 1"),
    ],
)
def test_options_that_do_not_exist(settings, message):
    with pytest.raises(ValueError, match=message.replace("+", r"\+")):
        make(**settings)


def test_the_released_optimisers_reset_what_the_released_code_resets():
    data, rate = tiny.batches(12), {"replacement_rate": 1 / 4}

    def of(optimizer, moment_reset=None, **settings):
        chosen = {"optimizer": optimizer, "moment_reset": moment_reset, **rate}
        _, learners, own = run(make(**chosen, **settings), data)
        assert (own.age[-1] < 12).any()  # some unit was replaced
        return learners.opt

    for optimizer, what in {
        "adam_gnt": "moments+count", "momentum": "none", "adam": "moments",
    }.items():  # fmt: skip
        chex.assert_trees_all_equal(of(optimizer), of(optimizer, what))
    assert (of("adam_gnt", "moments").count["h1"]["kernel"][-1] == 12).all()
    assert (of("adam_gnt").count["h1"]["kernel"][-1] < 12).any()
    nature = of("adam_gnt", variant="nature")
    assert (nature.count["h1"]["kernel"][-1] == 12).all()
