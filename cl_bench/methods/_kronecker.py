"""Kronecker-factored curvature of dense layers: Lambda = A (x) G, one pair a module.

A [in + 1, in + 1] is that of a layer's inputs with a 1 for the bias, G [out, out] that
of the gradients at its pre-activations. Lambda takes a matrix W [in + 1, out], the
kernel with the bias as its last row, to A W G. A layer without a bias has no such row.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench import linalg
from cl_bench.methods import _example_gradients, _fisher
from cl_bench.types import (
    Batch,
    Key,
    NetState,
    Network,
    PyTree,
    StreamSpec,
    TrainBatches,
)


class Factors(NamedTuple):
    """Lambda of every module."""

    inputs: dict[str, Array]  # module -> A
    outputs: dict[str, Array]  # module -> G


Estimate = Callable[[Key, TrainBatches, NetState], Factors]


def require_dense(net: Network, spec: StreamSpec, who: str) -> None:
    """Raise ValueError for a network that is not dense layers and nothing else."""
    if not _example_gradients.is_dense(net, spec):
        raise ValueError(
            f"{who} works on dense layers and nothing else: take the network mlp without "
            "normalisation, learned activations or doubled features, or the method ewc"
        )


def scaled_identity(params: PyTree, scale: Array | float) -> Factors:
    """scale^2 times the identity, as scale I (x) scale I."""
    matrices = _as_matrices(params)
    return Factors(
        {name: scale * jnp.eye(len(w)) for name, w in matrices.items()},
        {name: scale * jnp.eye(len(w[0])) for name, w in matrices.items()},
    )


def fisher(
    net: Network, spec: StreamSpec, estimator: str, examples: int | None
) -> Estimate:
    """A = mean of a a^T, G = mean of E_y[d d^T] over a task's examples x.

    a is a layer's input with its 1, d = d log p(y | x) / dz; labels and passes are those
    of `_fisher.make`. (Martens and Grosse, ICML 2015, section 3.)
    """
    writes, _ = _example_gradients.wiring(net)

    def of_batch(key: Key, state: NetState, batch: Batch) -> Factors:
        logits, acts, back = _example_gradients.tapped(net, state, batch.x)
        of_labels, count = _fisher.directions(spec, estimator, key, batch)

        def add(total, direction, weight):
            return jax.tree.map(
                lambda t, d: t + (weight[:, None] * d).T @ d, total, back(direction)
            )

        deltas = jax.eval_shape(back, logits)
        zeros = {tap: jnp.zeros((d.shape[1],) * 2) for tap, d in deltas.items()}
        at_taps = _example_gradients.over_directions(
            add, zeros, logits, of_labels, count
        )
        read = {}
        for name, a in _example_gradients.inputs_of(net, state, acts).items():
            if "bias" in state.params[name]:
                a = jnp.concatenate([a, jnp.ones((len(a), 1))], axis=1)
            read[name] = (batch.weight[:, None] * a).T @ a
        return Factors(read, {name: at_taps[writes[name]] for name in state.params})

    def estimate(key: Key, train: TrainBatches, state: NetState) -> Factors:
        def body(i: Array, batch: Batch) -> tuple[Factors, Array]:
            found = of_batch(jax.random.fold_in(key, i), state, batch)
            return found, jnp.sum(batch.weight)

        zeros = jax.tree.map(jnp.zeros_like, scaled_identity(state.params, 1.0))
        return _example_gradients.task_mean(spec, examples, train, zeros, body)

    return estimate


def add(first: Factors, second: Factors) -> Factors:
    """One Kronecker product near first + second, module by module.

    (A_1 + A_2 / pi) (x) (G_1 + pi G_2), pi^2 = tr(G_1) tr(A_2) / (tr(G_2) tr(A_1)): of
    all pi the one of least tr(A) tr(G). The first where the second is 0. (Martens and
    Grosse 2015, section 6.3.)
    """
    inputs, outputs = {}, {}
    for name, a in first.inputs.items():
        g, more_a, more_g = (
            first.outputs[name],
            second.inputs[name],
            second.outputs[name],
        )
        ours = jnp.trace(g) / jnp.trace(a)
        some = (jnp.trace(more_a) > 0.0) & (jnp.trace(more_g) > 0.0)
        theirs = jnp.trace(more_a) / jnp.where(some, jnp.trace(more_g), 1.0)
        pi = jnp.where(some, jnp.sqrt(ours * theirs), 1.0)
        inputs[name] = a + jnp.where(some, more_a / pi, 0.0)
        outputs[name] = g + jnp.where(some, more_g * pi, 0.0)
    return Factors(inputs, outputs)


def inverse(factors: Factors) -> Factors:
    """Lambda^-1 = A^-1 (x) G^-1."""
    return jax.tree.map(linalg.inverse, factors)


def apply(factors: Factors, params: PyTree) -> PyTree:
    """A W G of every module, as a tree shaped like `params`."""
    found = {}
    for name, w in _as_matrices(params).items():
        product = factors.inputs[name] @ w @ factors.outputs[name]
        layer = params[name]
        if "bias" in layer:
            found[name] = {"kernel": product[:-1], "bias": product[-1]}
        else:
            found[name] = {"kernel": product}
    return found


def _as_matrices(params: PyTree) -> dict[str, Array]:
    """Module -> W [in + 1, out]."""
    return {
        name: jnp.concatenate([layer["kernel"], layer["bias"][None]])
        if "bias" in layer
        else layer["kernel"]
        for name, layer in params.items()
    }
