"""Hare and Tortoise: a slow copy to which the fast network returns now and then."""

import jax
import jax.numpy as jnp
from flax import struct

from cl_bench import optimizers
from cl_bench.methods._compose import compose
from cl_bench.types import Method, NetTransform, Network, StreamSpec

REFERENCE = "Lee et al., ICML 2024; released code, dojeon-ai/Hare-Tortoise"
NEEDS: frozenset[str] = frozenset()
NEUTRAL = {
    "momentum": 0.0
}  # the slow copy is the fast network: returning changes nothing


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """Momentum of the released code; `period` counts segments (epochs, there 10)."""

    momentum: float = 0.999  # of the slow copy, after every step
    period: int = struct.field(pytree_node=False, default=10)
    evaluate: str = struct.field(pytree_node=False, default="hare")


def check(hyper: Hyper) -> None:
    """Raise ValueError for an option that does not exist."""
    if hyper.evaluate not in ("hare", "tortoise"):
        raise ValueError(f"evaluate={hyper.evaluate!r} is none of hare, tortoise")
    if hyper.period < 1:
        raise ValueError(f"period={hyper.period}: at least 1 segment")


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """slow <- momentum slow + (1 - momentum) fast each step; every `period` segments
    fast <- slow.

    Parameters and normalisation statistics alike; the optimiser's moments stay.
    `evaluate` names the network that predicts, the fast one (hare) or the slow one.
    """
    check(hyper)
    m = hyper.momentum

    def follow(key, clock, signals, state, slow):
        del key, clock, signals
        moved = jax.tree.map(
            lambda old, now: m * old + (1.0 - m) * now,
            (slow.params, slow.stats),
            (state.params, state.stats),
        )
        return state, state._replace(params=moved[0], stats=moved[1]), None

    base = compose(
        net,
        spec,
        optimizers.make(hyper),
        transforms=(NetTransform(lambda state: state, follow),),
    )
    steps = hyper.period * spec.steps_per_segment

    def end_segment(key, clock, train, learner):
        del key, train
        slow = learner.extra["transform_0"]
        due = clock.step % steps == 0
        back = jax.tree.map(
            lambda new, old: jnp.where(due, new, old), slow, learner.net
        )
        return learner._replace(net=back)

    def predict(learner, batch):
        slow = learner.extra["transform_0"]
        return base.predict(learner._replace(net=slow), batch)

    slow_predicts = hyper.evaluate == "tortoise"
    return base._replace(
        end_segment=end_segment, predict=predict if slow_predicts else base.predict,
        answers_by_net=not slow_predicts,
    )  # fmt: skip
