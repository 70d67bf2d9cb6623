"""Head reset: the last layer starts anew at every task boundary."""

import jax
import jax.numpy as jnp
from flax import struct

from cl_bench import optimizers
from cl_bench.methods._compose import compose
from cl_bench.types import Learner, Method, Network, StreamSpec

REFERENCE = (
    "Dohare et al., Nature 632 (2024) 768-774, released code, Continual ImageNet and "
    "class-incremental CIFAR-100"
)
NEEDS = frozenset({"boundaries"})
# Backprop in the first task alone: what starts anew has no strength to set to 0.
NEUTRAL: dict[str, float] | None = None


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """`head` is 'zero' (the paper's Continual ImageNet) or 'redraw' (its CIFAR-100)."""

    head: str = struct.field(pytree_node=False, default="zero")


def check(hyper: Hyper) -> None:
    """Raise ValueError for a kind of reset that does not exist."""
    if hyper.head not in ("zero", "redraw"):
        raise ValueError(f"head={hyper.head!r} is none of zero, redraw")


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """Backprop that resets weights, bias and moments of the head at every boundary.

    Nothing happens before the first task. Step counts of the optimiser go on.
    """
    # Departs from the paper: its code on Continual ImageNet keeps the head's momentum.
    check(hyper)
    optim = optimizers.make(hyper)

    def start_task(key, clock, train, learner: Learner) -> Learner:
        del train
        params = learner.net.params
        fresh = net.init(key).params[net.head]
        if hyper.head == "zero":
            fresh = jax.tree.map(jnp.zeros_like, fresh)
        later = clock.step > 0
        head = jax.tree.map(
            lambda old, new: jnp.where(later, new, old), params[net.head], fresh
        )
        touched = {
            name: jax.tree.map(
                lambda p, n=name: jnp.full(p.shape, n == net.head), layer
            )
            for name, layer in params.items()
        }
        opt = optim.reset(learner.opt, touched, "moments")
        net_state = learner.net._replace(params={**params, net.head: head})
        return learner._replace(net=net_state, opt=opt)

    return compose(net, spec, optim, start_task=start_task)
