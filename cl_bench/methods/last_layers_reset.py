"""Periodic reset of the last layers, against primacy bias."""

import jax
import jax.numpy as jnp
from flax import struct

from cl_bench import optimizers
from cl_bench.methods._compose import compose
from cl_bench.methods._surgery import apply_if
from cl_bench.types import Method, NetTransform, Network, PyTree, StreamSpec

REFERENCE = (
    "Nikishin, Schwarzer, D'Oro, Bacon and Courville, ICML 2022 (arXiv 2205.07802), read "
    "in the released code, evgenii-nikishin/rl_with_resets (Atari)"
)
NEEDS: frozenset[str] = frozenset()
NEUTRAL = {"period": 2**31 - 1}  # the last step that a run can count to


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """`layers` counts from the output layer; `period` in steps.

    Both as in the released code on Atari: the output layer, every 20,000 steps of the
    environment with two updates each.
    """

    layers: int = struct.field(pytree_node=False, default=1)
    period: int = struct.field(pytree_node=False, default=40_000)


def modules(net: Network, layers: int) -> tuple[str, ...]:
    """Names of the last `layers` layers' modules. Raises ValueError if there are fewer."""
    hidden = [unit.incoming for unit in net.units]
    if not 1 <= layers <= len(hidden) + 1:
        raise ValueError(f"layers={layers}: the network has {len(hidden) + 1} layers")
    chosen = hidden[len(hidden) - layers + 1 :]
    return (*(name for names in chosen for name in names), net.head)


def check(hyper: Hyper) -> None:
    """Raise ValueError for a period that cannot be."""
    if hyper.period < 1:
        raise ValueError(f"period={hyper.period}: at least 1 step")


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """Backprop whose last layers, with their moments, start anew every `period` steps."""
    check(hyper)
    names = modules(net, hyper.layers)
    optim = optimizers.make(hyper)

    def update(key, clock, signals, state, own):
        del signals
        due = (clock.step + 1) % hyper.period == 0

        def reset(turn, state):
            fresh = net.init(jax.random.fold_in(key, turn))
            drawn = {name: fresh.params[name] for name in names}
            return state._replace(
                params={**state.params, **drawn},
                stats=_replaced(state.stats, fresh.stats, names),
            )

        state = apply_if(due, reset, state)
        touched = {
            name: jax.tree.map(
                lambda p, hit=name in names: jnp.full(p.shape, hit) & due, layer
            )
            for name, layer in state.params.items()
        }
        return state, own, None if hyper.optimizer == "sgd" else touched

    return compose(
        net, spec, optim, transforms=(NetTransform(lambda state: (), update),)
    )


def _replaced(stats: PyTree, fresh: PyTree, names: tuple[str, ...]) -> PyTree:
    """The statistics of these modules as at the start, those of the backward pass too."""
    stats = {**stats, **{name: fresh[name] for name in names if name in fresh}}
    if "backward" in fresh:
        backward = _replaced(stats["backward"], fresh["backward"], names)
        stats = {**stats, "backward": backward}
    return stats
