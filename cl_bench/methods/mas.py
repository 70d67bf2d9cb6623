"""Memory aware synapses: importance is how much a weight moves the outputs."""

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from cl_bench import optimizers
from cl_bench.losses import weighted_mean
from cl_bench.methods import _anchors, _example_gradients
from cl_bench.methods._compose import compose
from cl_bench.types import Batch, Learner, Method, Network, PyTree, StreamSpec

REFERENCE = (
    "Aljundi et al., ECCV 2018 (arXiv 1711.09601), section 3; written from a secondary "
    "description and the released code, rahafaljundi/MAS-Memory-Aware-Synapses"
)
NEEDS = frozenset({"boundaries"})
NEUTRAL = {"strength": 0.0}
ESTIMATORS = ("example", "batched")
OUTPUTS = ("sum", "mean")


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """The paper's lambda.

    `importance_examples`: None takes all of a task (`_example_gradients.task_mean`).
    """

    strength: float = 1.0
    estimator: str = struct.field(pytree_node=False, default="example")
    outputs: str = struct.field(pytree_node=False, default="sum")
    importance_examples: int | None = struct.field(pytree_node=False, default=None)


def check(hyper: Hyper) -> None:
    """Raise ValueError for an option that does not exist and for no examples."""
    if hyper.estimator not in ESTIMATORS:
        raise ValueError(
            f"estimator={hyper.estimator!r} is none of {', '.join(ESTIMATORS)}"
        )
    if hyper.outputs not in OUTPUTS:
        raise ValueError(f"outputs={hyper.outputs!r} is none of {', '.join(OUTPUTS)}")
    _example_gradients.check_examples(hyper.importance_examples, "importance_examples")


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """Loss + strength sum_i Omega_i (theta_i - theta*_i)^2, theta* the last task's end.

    Omega is the sum over the tasks that have ended of mean_x |d ||f(x)||^2 / d theta_i|
    over their training examples, f the outputs in play, in evaluation mode; labels are
    not used. There is no 1/2. 'example' takes the absolute value of each example's
    gradient, as the paper's equation does; 'batched' that of each mini-batch's mean
    gradient, as the released code, Avalanche and GT-RIPL do. It is smaller, for
    gradients of opposite signs cancel. outputs='mean' divides ||f||^2 by the number of
    outputs in play, as GT-RIPL (Hsu et al.) does; in the class-incremental scenario
    that number can grow from task to task.
    """
    check(hyper)
    of_examples = _example_gradients.make(net, spec)

    def share(classes: Array) -> Array:
        """[B]: what each of the outputs in play counts."""
        if hyper.outputs == "sum":
            return jnp.ones(len(classes))
        return 1.0 / jnp.sum(classes, axis=-1)

    def importance(train, state) -> PyTree:
        def of_batch(i: Array, batch: Batch) -> tuple[PyTree, Array]:
            del i
            if hyper.estimator == "batched":
                grads = jax.grad(_mean_square)(state.params, net, state, batch, share)
                return jax.tree.map(jnp.abs, grads), jnp.ones(())

            def direction(logits, i):
                del i
                scaled = share(batch.classes)[:, None] * _in_play(logits, batch)
                return 2.0 * scaled, batch.weight

            return of_examples(state, batch.x, direction, 1, 1), jnp.sum(batch.weight)

        zeros = jax.tree.map(jnp.zeros_like, state.params)
        return _example_gradients.task_mean(
            spec, hyper.importance_examples, train, zeros, of_batch
        )

    def end_task(key, clock, train, learner: Learner) -> Learner:
        del key, clock
        omega = importance(train, learner.net)
        return _anchors.remember(learner, omega, "online")

    return compose(
        net,
        spec,
        optimizers.make(hyper),
        grad_transforms=(_anchors.pull(net, 2.0 * hyper.strength),),
        end_task=end_task,
    )


def _in_play(logits: Array, batch: Batch) -> Array:
    return jnp.where(batch.classes, logits, 0.0)


def _mean_square(params: PyTree, net: Network, state, batch: Batch, share) -> Array:
    """Mean over the batch of `share` times ||f(x)||^2."""
    at = state._replace(params=params)
    outputs = _in_play(net.apply(at, batch.x, train=False, key=None)[0], batch)
    squares = share(batch.classes) * jnp.sum(jnp.square(outputs), axis=-1)
    return weighted_mean(squares, batch.weight)
