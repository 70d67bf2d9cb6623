"""L2 to the previous task: every weight is pulled alike to where the last task ended."""

import jax
import jax.numpy as jnp
from flax import struct

from cl_bench import optimizers
from cl_bench.methods import _anchors
from cl_bench.methods._compose import compose
from cl_bench.types import Learner, Method, Network, StreamSpec

REFERENCE = (
    "Hsu et al., NeurIPS 2018 continual learning workshop (arXiv 1810.12488), 'L2', "
    "from their code, GT-RIPL/Continual-Learning-Benchmark; the control of Kirkpatrick "
    "et al., PNAS 114 (2017)"
)
NEEDS = frozenset({"boundaries"})
NEUTRAL = {"strength": 0.0}


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """Hsu et al.'s for Split MNIST, task-incremental, with Adam.

    Their coefficients are 0.01, 0.5 and 100 (task-, domain- and class-incremental), of
    a penalty without the 1/2: `strength` is twice theirs.
    """

    strength: float = 0.02
    mode: str = struct.field(pytree_node=False, default="online")


def check(hyper: Hyper) -> None:
    """Raise ValueError for a mode that does not exist."""
    _anchors.check_mode(hyper.mode)


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """Loss + strength / 2 ||theta - theta*||^2, theta* the parameters at the last end.

    mode 'online' is Hsu et al.'s code: one anchor, of weight 1 however many tasks have
    ended. 'separate' adds one such penalty a task. Weights that were not in use at a
    task's end are not held by it. It is elastic weight consolidation with a Fisher of 1.
    """
    check(hyper)

    def end_task(key, clock, train, learner: Learner) -> Learner:
        del key, clock, train
        ones = jax.tree.map(jnp.ones_like, learner.net.params)
        ones = _anchors.in_use(net, learner.net, ones)
        return _anchors.remember(learner, ones, hyper.mode, decay=0.0)

    return compose(
        net,
        spec,
        optimizers.make(hyper),
        grad_transforms=(_anchors.pull(net, hyper.strength),),
        end_task=end_task,
    )
