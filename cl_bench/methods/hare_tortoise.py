"""Hare and Tortoise: a slow copy to which the fast network returns now and then."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from cl_bench import optimizers, units
from cl_bench.methods._compose import compose
from cl_bench.schedule import epoch_steps, schedule
from cl_bench.types import Method, NetState, NetTransform, Network, StreamSpec

REFERENCE = (
    "Lee et al., ICML 2024; written from a secondary source, a description of the "
    "released code, dojeon-ai/Hare-Tortoise"
)
NEEDS: frozenset[str] = frozenset()
# The slow copy is the fast network: returning changes nothing.
NEUTRAL = {"slow_momentum": 0.0}


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """Values and optimiser of the released code."""

    step_size: float = 0.001
    weight_decay: float = 0.001
    optimizer: str = struct.field(pytree_node=False, default="adamw")
    slow_momentum: float = 0.999  # m of the slow copy; `momentum` is the optimiser's
    period: int = struct.field(pytree_node=False, default=10)  # epochs
    evaluate: str = struct.field(pytree_node=False, default="hare")


class State(NamedTuple):
    """The tortoise, and how long the hare has been away from it."""

    slow: NetState
    since: Array  # () int32, steps since the last return


def check(hyper: Hyper) -> None:
    """Raise ValueError for an option that does not exist."""
    if hyper.evaluate not in ("hare", "tortoise"):
        raise ValueError(f"evaluate={hyper.evaluate!r} is none of hare, tortoise")
    if hyper.period < 1:
        raise ValueError(f"period={hyper.period}: at least 1 epoch")


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """slow <- m slow + (1 - m) fast each step; every `period` epochs fast <- slow.

    Parameters and normalisation statistics alike; the optimiser's moments stay. Epochs
    are those of the task at hand (`schedule.epoch_steps`), or of the longest one where
    the stream tells no boundaries; steps since the last return are counted over
    boundaries. `evaluate` names the network that predicts, the fast one (hare) or the
    slow one. A benchmark's reset of the head is of both.
    # Departs from the released code: no clipping of gradients at 0.5, no warm-up of the
    # step size over the first tenth, no new optimiser for every task.
    """
    check(hyper)
    method = compose(
        net,
        spec,
        optimizers.make(hyper),
        transforms=(_return_to_slow(net, spec, hyper),),
    )

    def predict(learner, batch):
        slow = learner.extra["transform_0"].slow
        return method.predict(learner._replace(net=slow), batch)

    if hyper.evaluate == "hare":
        return method
    return method._replace(predict=predict, answers_by_net=False)


def _period(spec: StreamSpec, hyper: Hyper) -> Callable[[Array], Array]:
    """Steps between two returns, at a step of the run: () int32.

    A method that needs no boundaries is not shown the task, on any stream: where the
    stream tells them, it follows from the step and the lengths of the tasks.
    """
    epochs = epoch_steps(spec).astype(np.int64)
    if "boundaries" not in spec.offers:
        epochs = epochs.max(keepdims=True)
    never = np.iinfo(np.int32).max
    periods = np.minimum(hyper.period * epochs, never).astype(np.int32)
    if len(set(periods.tolist())) == 1:
        return lambda step: jnp.asarray(periods[0])
    starts = schedule(spec).starts.astype(np.int32)

    def at(step: Array) -> Array:
        return jnp.asarray(periods)[jnp.sum(step >= jnp.asarray(starts)) - 1]

    return at


def _return_to_slow(net: Network, spec: StreamSpec, hyper: Hyper) -> NetTransform:
    m, period = hyper.slow_momentum, _period(spec, hyper)
    starts = schedule(spec).starts.astype(np.int32)

    def init(state: NetState) -> State:
        return State(state, jnp.zeros((), jnp.int32))

    def update(key, clock, signals, state, own):
        del key, signals
        fast, before = (state.params, state.stats), own.slow
        if spec.reset_head:  # the fast network's was, before this task's first step
            begins = jnp.any(clock.step == starts)
            zero = units.reset_head(before, net.head).params
            params = jax.tree.map(
                lambda new, old: jnp.where(begins, new, old), zero, before.params
            )
            before = before._replace(params=params)
        slow = jax.tree.map(
            lambda old, now: m * old + (1.0 - m) * now,
            (before.params, before.stats),
            fast,
        )
        since = own.since + 1
        due = since >= period(clock.step)
        fast = jax.tree.map(lambda new, old: jnp.where(due, new, old), slow, fast)
        state = state._replace(params=fast[0], stats=fast[1])
        own = State(
            own.slow._replace(params=slow[0], stats=slow[1]),
            jnp.where(due, 0, since),
        )
        return state, own, None

    return NetTransform(init, update)
