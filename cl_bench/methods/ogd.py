"""Orthogonal gradient descent: steps orthogonal to the gradients of old answers."""

import math

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.flatten_util import ravel_pytree

from cl_bench import linalg, optimizers, shapes
from cl_bench.losses import squared_error
from cl_bench.methods import _subspace
from cl_bench.methods._compose import compose
from cl_bench.types import GradTransform, Method, Network, StreamSpec

REFERENCE = "Farajtabar, Azizan, Mott and Li, AISTATS 2020 (arXiv 1910.07104), OGD-GTL"
NEEDS = frozenset({"boundaries"})
# Any stored direction restricts the later tasks: no value of a setting gives backprop.
NEUTRAL: dict[str, float] | None = None
ROUNDING = 1e-5  # share of the gradients' size below which a new direction is none


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """The paper's 200 gradients a task, and its SGD of step size 1e-3."""

    step_size: float = 1e-3
    examples: int = struct.field(pytree_node=False, default=200)


def check(hyper: Hyper) -> None:
    """Raise ValueError for a number of examples that cannot be."""
    if hyper.examples < 1:
        raise ValueError(f"examples={hyper.examples}: at least 1")


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """g <- g - sum_u <g, u> u over an orthonormal basis of the stored gradients.

    At the end of each task the gradients of the logit of the true class, of the first
    `examples` training examples (at most one pass), join the basis. The step is the
    paper's with SGD only: moments and weight decay leave the complement.
    Memory: T x examples x parameters floats, and twice as many multiplications a
    step.

    Raises ValueError for a stream whose targets are not classes.
    """
    check(hyper)
    if spec.loss is squared_error:
        raise ValueError(
            "ogd stores the gradient of the true class's logit, and this stream is a "
            "regression; gpm projects without labels"
        )
    parameters = sum(math.prod(p.shape) for p in jax.tree.leaves(shapes.params(net)))
    stored = min(hyper.examples, spec.examples_per_task, parameters)

    def init(state):
        del state
        return jnp.zeros((spec.num_tasks * stored, parameters))

    def update(key, clock, grads, state, basis):
        del key, clock, state
        g, unravel = ravel_pytree(grads)
        return unravel(g - basis.T @ (basis @ g)), basis

    def end_task(key, clock, train, learner):
        del key
        basis = learner.extra["grad_transform_0"]
        rows = _subspace.first_examples(
            spec, train, stored, lambda batch: logit_gradients(net, learner.net, batch)
        )
        new = new_directions(basis, rows)
        basis = jax.lax.dynamic_update_slice(basis, new, (clock.task * stored, 0))
        return learner._replace(extra={**learner.extra, "grad_transform_0": basis})

    return compose(
        net,
        spec,
        optimizers.make(hyper),
        grad_transforms=(GradTransform(init, update),),
        end_task=end_task,
    )


def logit_gradients(net: Network, state, batch) -> Array:
    """d f(x)_y / d theta of each example, flat: [B, parameters]; 0 for padding."""

    def logit(params, x, y):
        at = state._replace(params=params)
        return net.apply(at, x[None], train=False, key=None)[0][0, y]

    def one(x, y, weight):
        flat = ravel_pytree(jax.grad(logit)(state.params, x, y))[0]
        return jnp.where(weight > 0, flat, 0.0)

    return jax.vmap(one)(batch.x, batch.y, batch.weight)


def new_directions(basis: Array, rows: Array) -> Array:
    """An orthonormal basis of what `rows` [m, P] add to the span of `basis`, padded
    with rows of zeros: [m, P].

    The paper orthonormalises one by one (Gram-Schmidt); a singular value decomposition
    of the block spans the same space, and only the span matters.
    """
    left = rows
    for _ in range(2):  # once more for what rounding has left
        left = left - (left @ basis.T) @ basis
    _, s, directions = linalg.svd(left)
    real = s > ROUNDING * jnp.sqrt(jnp.sum(jnp.square(rows)))
    return jnp.where(real[:, None], directions, 0.0)
