"""Every check of the conformance suite that a method can fail finds its fault."""

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import struct

from cl_bench import testing
from cl_bench.methods import backprop
from cl_bench.testing import ConformanceError
from tests.conformance_test import load


@struct.dataclass
class Hyper(backprop.Hyper):
    strength: float = 0.5


def method(change=lambda made, hyper: made, hyper: Any = Hyper, **facts):
    """Backprop's module with a fault: `change(method, hyper)` gives the broken one."""
    fields = {"REFERENCE": "none", "NEEDS": frozenset(), "Hyper": hyper} | facts
    fields = {"__name__": "broken", "make": _make(change)} | fields
    return SimpleNamespace(**fields)


def _make(change):
    return lambda net, spec, hyper: change(backprop.make(net, spec, hyper), hyper)


def after_step(fault):
    """A step whose learner then goes through `fault(learner, hyper)`."""

    def change(made, hyper):
        def step(key, clock, batch, learner):
            learner, signals = made.step(key, clock, batch, learner)
            return fault(learner, hyper), signals

        return made._replace(step=step)

    return change


def change_params(f):
    def fault(learner, hyper):
        params = jax.tree.map(lambda p: f(p, hyper), learner.net.params)
        return learner._replace(net=learner.net._replace(params=params))

    return after_step(fault)


def gain_a_leaf(learner, hyper):
    return learner._replace(extra={**learner.extra, "steps": jnp.int32(1)})


def allow_every_edge(learner, hyper):
    if learner.net.edges is None:
        return learner
    edges = jax.tree.map(jnp.ones_like, learner.net.edges)
    return learner._replace(net=learner.net._replace(edges=edges))


def unmasked(made, hyper):
    def predict(learner, batch):
        logits, acts = made.predict(learner, batch)
        return jnp.maximum(logits, -10.0), acts

    return made._replace(predict=predict)


def printing(learner, hyper):
    jax.debug.print("loss")
    return learner


def branch(made, hyper):
    return made if hyper.strength > 0 else made._replace(end_task=made.start_task)


def never_nan(p, hyper):
    return jnp.nan_to_num(p)


@struct.dataclass
class NameAsNumber(backprop.Hyper):
    variant: str = "one"


def forgetful(made, hyper):
    """Every seed starts from the same network."""
    return made._replace(init=lambda key: made.init(jax.random.key(0)))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (method(REFERENCE=""), "names the source"),
        (method(NEEDS={"boundaries"}), "frozenset"),
        (method(NEEDS=frozenset({"task"})), "out of"),
        (method(hyper=dict), "flax.struct.dataclass"),
        (method(NEUTRAL={"rho": 0.0}), "no fields of Hyper"),
        (method(hyper=NameAsNumber), "Hyper.variant = 'one' is traced"),
        (method(branch), r"Hyper\.strength is traced, but make uses its value"),
        (method(after_step(gain_a_leaf)), "gained the leaf .extra"),
        (method(change_params(lambda p, h: p.astype(jnp.bfloat16))), "became bfloat16"),
        (method(unmasked), "predict must return masked logits"),
        (method(change_params(lambda p, h: p * h.strength), NEUTRAL={"strength": 0.9}),
         "not backprop op by op"),
        (method(after_step(printing)), "calls the host"),
        (method(after_step(allow_every_edge)), "only hardware code"),
        (method(change_params(never_nan)), "must stay NaN"),
        (method(forgetful), "init must use its key"),
        (method(change_params(lambda p, h: p / 0)), "diverged on the small problem"),
    ],
)  # fmt: skip
def test_a_broken_method_is_found(broken, message):
    with pytest.raises(ConformanceError, match=message):
        testing.check_method(broken)


def test_without_the_runner_s_constraint_a_copy_would_not_stay_zero(monkeypatch):
    monkeypatch.setattr(
        "cl_bench.runner.units.constrain", lambda learner, units: learner
    )
    with pytest.raises(ConformanceError, match="has weights on dead units"):
        testing.check_method(load("methods", "slow_copy"))


def test_a_method_that_the_stream_does_not_serve_is_refused():
    needy: Any = method(NEEDS=frozenset({"task_id"}))
    with pytest.raises(ConformanceError, match="the stream does not offer"):
        testing.check_method(needy, stream=testing.tiny_stream())
