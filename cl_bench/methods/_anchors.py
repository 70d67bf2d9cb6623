"""The quadratic pull towards the parameters that past tasks ended with."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench import units
from cl_bench.types import GradTransform, Learner, NetState, Network, PyTree

MODES = ("separate", "online")
PLACE = "grad_transform_0"  # in learner.extra: the pull is the first transform


class Anchors(NamedTuple):
    """One quadratic a parameter, whatever the number of tasks."""

    weight: PyTree  # sum of the tasks' importances
    centre: PyTree  # the parameters it is least at


def check_mode(mode: str) -> None:
    """Raise ValueError for a way of joining tasks that does not exist."""
    if mode not in MODES:
        raise ValueError(f"mode={mode!r} is none of {', '.join(MODES)}")


def pull(net: Network, strength: Array | float) -> GradTransform:
    """Adds strength * weight (theta - centre): the gradient of a penalty of

    strength / 2 * sum_i weight_i (theta_i - centre_i)^2,

    and exactly 0 until `remember` was first called. Weights that are not in use get
    none of it. It is an explicit step: plain SGD leaves the quadratic at
    step_size * strength * weight > 2. `Signals.grads` stays the gradient of the loss.
    """

    def init(state: NetState) -> Anchors:
        zeros = jax.tree.map(jnp.zeros_like, state.params)
        return Anchors(zeros, zeros)

    def update(key, clock, grads, state, own):
        del key, clock
        moved = jax.tree.map(jnp.subtract, state.params, own.centre)
        drawn = jax.tree.map(lambda w, d: strength * (w * d), own.weight, moved)
        drawn = in_use(net, state, drawn)
        return jax.tree.map(jnp.add, grads, drawn), own

    return GradTransform(init, update)


def of(learner: Learner) -> Anchors:
    """What the pull of a learner draws towards."""
    anchors: Any = learner.extra[PLACE]
    return anchors


def remember(
    learner: Learner, importance: PyTree, mode: str, decay: Array | float = 1.0
) -> Learner:
    """The learner with the end of this task added to its anchors.

    'online': weight <- decay * weight + importance, centre <- theta. 'separate': the
    sum of all tasks' quadratics sum_t F_t (theta - theta_t)^2. Up to a constant that is
    one quadratic too, of weight sum_t F_t around the weighted mean of the theta_t, which
    needs importances that are not negative. The mean rather than sum_t F_t theta_t is
    kept, as theta minus it loses no digits however large the strength.
    """
    old, theta = of(learner), learner.net.params
    if mode == "online":
        weight = jax.tree.map(lambda w, f: decay * w + f, old.weight, importance)
        new = Anchors(weight, theta)
    else:
        weight = jax.tree.map(jnp.add, old.weight, importance)
        new = Anchors(
            weight, jax.tree.map(_mean, old.centre, theta, importance, weight)
        )
    return learner._replace(extra={**learner.extra, PLACE: new})


def _mean(centre: Array, theta: Array, importance: Array, weight: Array) -> Array:
    share = importance / jnp.where(weight > 0.0, weight, 1.0)
    return jnp.where(weight > 0.0, centre + share * (theta - centre), theta)


def in_use(net: Network, state: NetState, tree: PyTree) -> PyTree:
    """A tree shaped like the parameters, 0 for dead units and forbidden edges."""
    if not state.alive and not state.edges:
        return tree
    counted = units.counted(state, net.units)
    return jax.tree.map(lambda t, c: jnp.where(c, t, 0.0), tree, counted)
