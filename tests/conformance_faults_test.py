"""Every check of networks, streams and metrics in the conformance suite can fail."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from cl_bench import registry, testing
from cl_bench.networks import mlp
from cl_bench.streams import permuted
from cl_bench.testing import ConformanceError
from tests.conformance_test import SMALL_STREAM

# ---- networks


def network(change):
    """The mlp's module with a fault: `change(network)` gives the broken one."""
    make = lambda spec: change(mlp.make(spec, widths=(7, 5)))
    return SimpleNamespace(__name__="broken", make=make)


def with_apply(wrap):
    """`wrap(apply, net, x, options)` instead of apply."""

    def change(net):
        def apply(state, x, **options):
            return wrap(net.apply, state, x, options)

        return net._replace(apply=apply)

    return network(change)


def without(option):
    """An apply that does not listen to an option."""
    return with_apply(lambda apply, net, x, o: apply(net, x, **{**o, option: None}))


def all_allowed(apply, net, x, options):
    return apply(net._replace(edges=None), x, **options)


def all_alive(apply, net, x, options):
    return apply(net._replace(alive={}), x, **options)


def unnamed(apply, net, x, options):
    logits, acts, stats = apply(net, x, **options)
    return logits, {name: h for name, h in acts.items() if name != "x"}, stats


def centred(apply, net, x, options):
    logits, acts, stats = apply(net, x, **options)
    return logits - logits.mean(axis=0), acts, stats


def swapped(net):
    """A unit table that is out of order."""
    first, second = net.units
    return net._replace(units=(first, second._replace(incoming=("h1",))))


def wider(net):
    return net._replace(columns=lambda key, m, n: 2 * net.columns(key, m, n))


def fixed(net):
    draw = net.columns
    return net._replace(columns=lambda key, m, n: draw(jax.random.key(0), m, n))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (network(swapped), "axis -1 of the kernel of 'h1'"),
        (network(wider), "draw both alike"),
        (network(fixed), "ignores its key"),
        (with_apply(unnamed), r"no \['x'\]"),
        (with_apply(centred), "depends on the other examples"),
        (without("gates"), "against h"),
        (without("taps"), "gradient of its kernel"),
        (with_apply(all_allowed), "the weight is still used"),
        (with_apply(all_alive), "its activation is not 0"),
    ],
)
def test_a_broken_network_is_found(broken, message):
    with pytest.raises(ConformanceError, match=message):
        testing.check_network(broken)


# ---- streams


def stream(change):
    """The permuted stream's module with a fault."""
    make = lambda: change(permuted.make(**SMALL_STREAM))
    return SimpleNamespace(__name__="broken", REFERENCE="none", make=make)


def with_batch(change):
    """`change(batch)` instead of each training batch."""
    return stream(
        lambda made: made._replace(
            batch=lambda data, state, i: change(made.batch(data, state, i))
        )
    )


def same_task(made):
    return made._replace(start=lambda d, key, task: made.start(d, key, task * 0))


def same_run(made):
    first = jax.random.key(0)
    return made._replace(start=lambda d, key, task: made.start(d, first, task))


def with_replacement(made):
    """Every batch is the first."""
    return made._replace(batch=lambda d, state, i: made.batch(d, state, i * 0))


def leaking(made):
    """The test examples are those trained on."""

    def held_out(data, state, split, now, i):
        batch = made.batch(data, state, 0 * i)
        return batch._replace(weight=batch.weight * (i == 0))

    return made._replace(held_out=held_out)


def endless(made):
    def held_out(data, state, split, now, i):
        return made.held_out(data, state, split, now, 0 * i)

    return made._replace(held_out=held_out)


def listed(made):
    return made._replace(spec=made.spec._replace(input_shape=[16]))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (stream(listed), "hashable"),
        (stream(same_task), "fold the task"),
        (stream(same_run), "other keys see the same task"),
        (stream(with_replacement), "each must come once"),
        (stream(leaking), "examples are trained on"),
        (stream(endless), "past its last example"),
        (with_batch(lambda b: b._replace(x=b.x.astype(jnp.bfloat16))), "x must be"),
        (with_batch(lambda b: b._replace(task=b.task + 1)), "Batch.task of task 0"),
        (with_batch(lambda b: b._replace(classes=~b.classes)), "not among its classes"),
        (with_batch(lambda b: b._replace(y=b.y + 3)), "must lie in 0 .. 2"),
    ],
)
def test_a_broken_stream_is_found(broken, message):
    with pytest.raises(ConformanceError, match=message):
        testing.check_stream(broken)


# ---- metrics


def metric(**changes):
    """Online accuracy's module with some phases replaced."""
    accuracy = registry.load("metrics", "online_accuracy")
    make = lambda net, spec: accuracy.make(net, spec)._replace(**changes)
    return SimpleNamespace(__name__="broken", make=make)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (metric(update=lambda state, *rest: {**state, "n": state["steps"]}), "gained"),
        (
            metric(read=lambda state, probe: {"share": state["steps"] / 0}),
            "never finite",
        ),
        (metric(read=lambda state, probe: {}), "records no number"),
    ],
)
def test_a_broken_metric_is_found(broken, message):
    with pytest.raises(ConformanceError, match=message):
        testing.check_metric(broken)


# ---- methods


def test_only_these_methods_are_backprop_at_no_setting():
    """Each says why in its file; a method of plasticity has a NEUTRAL."""
    without = {
        n for n in registry.names("methods") if not registry.load("methods", n).NEUTRAL
    } - {"backprop"}  # fmt: skip
    fresh_weights = {"independent", "progressive"}
    frozen = {"frozen_features", "hat", "packnet"}
    low_rank = {"inflora", "lora", "lora_per_task", "o_lora"}
    projected = {"agem", "gem", "ogd"}
    assert without == fresh_weights | frozen | low_rank | projected | {"bgd"}
