"""Synaptic intelligence: importance is what a weight's own path took off the loss."""

import jax
import jax.numpy as jnp
from flax import struct

from cl_bench import optimizers
from cl_bench.methods import _anchors, _freeze
from cl_bench.methods._compose import compose
from cl_bench.types import Learner, Method, Network, StreamSpec

REFERENCE = (
    "Zenke, Poole and Ganguli, ICML 2017 (arXiv 1703.04200), eqs. 3 to 5; written from "
    "a secondary description and the released code, ganguli-lab/pathint"
)
NEEDS = frozenset({"boundaries"})
NEUTRAL = {"strength": 0.0}


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """van de Ven's c for Split MNIST, task-incremental, and his xi.

    His others there: 5e4 domain-, 5e3 class-incremental. The paper: 1 with xi 1e-3 on
    Split MNIST, 0.1 with xi 0.1 on Permuted MNIST.
    """

    strength: float = 10.0  # c
    xi: float = 0.1  # keeps the importance of a weight that did not move finite
    clamp: bool = struct.field(pytree_node=False, default=False)


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """Loss + strength sum_i Omega_i (theta_i - theta*_i)^2, theta* the last task's end.

    During a task omega_i <- omega_i - g_i dtheta_i, g the gradient of the task's loss
    alone and dtheta the whole update, pull and optimiser included; at its end
    Omega_i <- Omega_i + omega_i / (D_i^2 + xi), D the way from the task's start to its
    end. There is no 1/2. With a pull, momentum or Adam Omega can be negative, and then
    pushes away, as in the paper's equations and the codes of van de Ven and Hsu et al.;
    `clamp` takes max(0, Omega), as the released code does. Only for plain gradient
    descent is omega a share of the loss: that of other optimisers means less.

    Raises ValueError for a benchmark that puts an earlier network back at a task's end:
    omega would be of the way to another.
    """
    _freeze.require_last(spec, "si", "ewc or mas")

    def start_task(key, clock, train, learner: Learner) -> Learner:
        del key, clock, train
        zeros = jax.tree.map(jnp.zeros_like, learner.net.params)
        own = {"path": zeros, "start": learner.net.params}
        return learner._replace(extra={**learner.extra, **own})

    def after_step(key, clock, batch, signals, learner: Learner) -> Learner:
        del key, clock, batch
        path = jax.tree.map(
            lambda w, g, d: w - g * d,
            learner.extra["path"],
            signals.grads,
            signals.updates,
        )
        return learner._replace(extra={**learner.extra, "path": path})

    def end_task(key, clock, train, learner: Learner) -> Learner:
        del key, clock, train

        def total(old, path, now, start):
            new = old + path / (jnp.square(now - start) + hyper.xi)
            return jnp.maximum(new, 0.0) if hyper.clamp else new

        omega = jax.tree.map(
            total,
            _anchors.of(learner).weight,
            learner.extra["path"],
            learner.net.params,
            learner.extra["start"],
        )
        return _anchors.remember(learner, omega, "online", decay=0.0)

    return compose(
        net,
        spec,
        optimizers.make(hyper),
        extra=lambda state: {
            "path": jax.tree.map(jnp.zeros_like, state.params),
            "start": state.params,
        },
        grad_transforms=(_anchors.pull(net, 2.0 * hyper.strength),),
        after_step=after_step,
        start_task=start_task,
        end_task=end_task,
    )
