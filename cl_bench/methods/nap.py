"""Normalise and project: layer norms, and weight matrices of constant norm."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from cl_bench import optimizers, shapes
from cl_bench.methods import _penalties
from cl_bench.methods._compose import compose
from cl_bench.types import (
    Key,
    Learner,
    Method,
    NetState,
    NetTransform,
    Network,
    StreamSpec,
)

REFERENCE = (
    "Lyle, Zheng, Khetarpal, Martens, van Hasselt, Pascanu and Dabney, NeurIPS 2024 "
    "(arXiv 2407.01800); no code released, written from a secondary description"
)
NEEDS: frozenset[str] = frozenset()
NEUTRAL = {"train_biases": True, "period": 2**31 - 1}  # the last step of any run


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """Adam at 1e-4, the paper's single-task setting.

    `period`: steps between projections; the paper finds every 1000 enough.
    `train_biases` leaves biases of normalised layers to the optimiser (ours).
    """

    step_size: float = 1e-4
    optimizer: str = struct.field(pytree_node=False, default="adam")
    period: int = struct.field(pytree_node=False, default=1)
    train_biases: bool = struct.field(pytree_node=False, default=False)


class Norms(NamedTuple):
    """What each hidden layer is projected to: norms at the start, ()."""

    kernel: Array  # ||W||_F
    affine: Array  # ||(scale, shift)||_2


def check(hyper: Hyper) -> None:
    """Raise ValueError for a period below 1."""
    if hyper.period < 1:
        raise ValueError(f"period={hyper.period}: at least 1 step between projections")


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """After each update, W <- rho W / ||W||_F in every hidden layer, rho the first norm.

    Scale and shift of each normalisation are rescaled jointly to their first norm.
    Biases of normalised layers are held at 0: the shift has their part. The head is
    free. Raises ValueError where a hidden layer has no normalisation: it is what makes
    the network's function independent of ||W||.
    """
    check(hyper)
    params = shapes.params(net)
    plain = [n for n in _penalties.hidden(net, params) if "scale" not in params[n]]
    if plain or not net.units:
        raise ValueError(
            "nap needs a normalisation in every hidden layer; there is none in "
            f"{', '.join(plain) or 'a network without hidden layers'}: give the network "
            "norm='layer'"
        )
    method = compose(
        net, spec, optimizers.make(hyper), transforms=(_project(net, hyper),)
    )
    if hyper.train_biases:
        return method

    def init(key: Key) -> Learner:
        learner = method.init(key)
        return learner._replace(net=_without_biases(net, learner.net))

    return method._replace(init=init)


def _project(net: Network, hyper: Hyper) -> NetTransform:
    def init(state: NetState) -> dict[str, Norms]:
        params = _penalties.constrained(net, state)
        return _norms(net, state._replace(params=params))

    def project(state: NetState, first: Mapping[str, Norms]) -> NetState:
        params, now = dict(state.params), _norms(net, state)
        for name, norms in first.items():
            layer = params[name]
            kernel = _ratio(norms.kernel, now[name].kernel)
            affine = _ratio(norms.affine, now[name].affine)
            params[name] = {
                **layer,
                "kernel": kernel * layer["kernel"],
                "scale": affine * layer["scale"],
                "shift": affine * layer["shift"],
            }
        return state._replace(params=params)

    def update(key, clock, signals, state, own):
        del key, signals
        if not hyper.train_biases:
            state = _without_biases(net, state)
        if hyper.period == 1:
            return project(state, own), own, None
        due = (clock.step + 1) % hyper.period == 0
        project_or_not = (lambda s: project(s, own)), (lambda s: s)
        return jax.lax.cond(due, *project_or_not, state), own, None

    return NetTransform(init, update)


def _norms(net: Network, state: NetState) -> dict[str, Norms]:
    """Of the hidden layers as they are, without units that are not alive."""
    alive = {
        name: state.alive[unit.name]
        for unit in net.units
        if unit.name in state.alive
        for name in unit.incoming
    }
    found = {}
    for name in _penalties.hidden(net, state.params):
        layer = state.params[name]
        squares = jnp.square(layer["scale"]) + jnp.square(layer["shift"])
        affine = jnp.sum(jnp.where(alive.get(name, True), squares, 0.0))
        kernel = jnp.sum(jnp.square(layer["kernel"]))
        found[name] = Norms(jnp.sqrt(kernel), jnp.sqrt(affine))
    return found


def _ratio(wanted: Array, found: Array) -> Array:
    return wanted / jnp.where(found > 0, found, 1.0)


def _without_biases(net: Network, state: NetState) -> NetState:
    params = dict(state.params)
    for name in _penalties.hidden(net, params):
        if "bias" in params[name]:
            zeros = jnp.zeros_like(params[name]["bias"])
            params[name] = {**params[name], "bias": zeros}
    return state._replace(params=params)
