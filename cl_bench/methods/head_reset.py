"""Head reset: the last layer starts anew at every task boundary."""

import jax
import jax.numpy as jnp
from flax import struct

from cl_bench import optimizers, units
from cl_bench.methods._compose import compose
from cl_bench.types import Learner, Method, Network, StreamSpec

REFERENCE = (
    "Dohare et al., Nature 632 (2024) 768-774, released code, Continual ImageNet and "
    "class-incremental CIFAR-100"
)
NEEDS = frozenset({"boundaries"})
NEUTRAL = {"every": 2**31 - 1}  # more tasks than a run can have


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """`head` is 'zero' (the paper's Continual ImageNet) or 'redraw' (its CIFAR-100).

    `every`: tasks from one reset to the next, 1 in the paper.
    """

    head: str = struct.field(pytree_node=False, default="zero")
    every: int = struct.field(pytree_node=False, default=1)


def check(hyper: Hyper) -> None:
    """Raise ValueError for a kind of reset, or a number of tasks, that cannot be."""
    if hyper.head not in ("zero", "redraw"):
        raise ValueError(f"head={hyper.head!r} is none of zero, redraw")
    if hyper.every < 1:
        raise ValueError(f"every={hyper.every}: at least 1 task from reset to reset")


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
        new = net.init(key).params
        if hyper.head == "zero":
            new = units.reset_head(learner.net, net.head).params
        due = (clock.step > 0) & (clock.task % hyper.every == 0)
        head = jax.tree.map(
            lambda old, new: jnp.where(due, new, old), params[net.head], new[net.head]
        )
        touched = {
            name: jax.tree.map(
                lambda p, n=name: jnp.full(p.shape, n == net.head) & due, layer
            )
            for name, layer in params.items()
        }
        opt = optim.reset(learner.opt, touched, "moments")
        net_state = learner.net._replace(params={**params, net.head: head})
        return learner._replace(net=net_state, opt=opt)

    return compose(net, spec, optim, start_task=start_task)
