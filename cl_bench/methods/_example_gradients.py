"""Means over a task's examples of |gradient| or gradient^2, one example at a time.

In a dense layer the gradient of one example is the outer product of its input a and of
delta = dL/dz, so that the sum over examples of |gradient|^p is (|a|^p)^T |delta|^p: no
gradient of a single example is ever formed.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench import shapes, units
from cl_bench.methods import _anchors
from cl_bench.types import Batch, NetState, Network, PyTree, StreamSpec, TrainBatches

# (logits [B, K], number i) -> direction [B, K] in the outputs, weight [B]
Directions = Callable[[Array, Array], tuple[Array, Array]]
# (state, x, directions, how many, power) -> tree shaped like the parameters
Sums = Callable[[NetState, Array, Directions, int, int], PyTree]
SIZES = {1: jnp.abs, 2: jnp.square}
CHUNK = 8  # examples whose own gradients are held at a time, where they must be


def make(net: Network, spec: StreamSpec) -> Sums:
    """sum over i and examples b of w_ib |d <direction_ib, f(x_b)> / d theta|^power.

    Evaluation mode, all parameters. A network of dense layers with biases costs one
    backward pass a direction and one product of matrices; any other (convolutions,
    normalisations, residual branches) one gradient an example and direction.
    """
    return partial(_dense if is_dense(net, spec) else _any, net)


def is_dense(net: Network, spec: StreamSpec) -> bool:
    """Whether each module is h @ kernel (+ bias), of an input that apply returns."""
    state = shapes.state(net)
    writes, reads = wiring(net)
    one = all(len(u.incoming) == len(u.outgoing) == u.repeat == 1 for u in net.units)
    if not one or set(state.params) != set(writes):
        return False
    acts = shapes.activations(net, spec)
    return all(
        set(layer) <= {"kernel", "bias"}
        and layer["kernel"].ndim == 2
        and acts[reads.get(name, "x")].size == layer["kernel"].shape[0]
        for name, layer in state.params.items()
    )


def wiring(net: Network) -> tuple[dict[str, str], dict[str, str]]:
    """Module -> the tap on its output; module -> the activation that it reads."""
    writes = {m: unit.name for unit in net.units for m in unit.incoming}
    reads = {m: unit.name for unit in net.units for m in unit.outgoing}
    return {**writes, net.head: "logits"}, reads


def tapped(net: Network, state: NetState, x: Array):
    """A forward pass of dense layers, and its way back to their pre-activations.

    Returns the logits [B, K], the activations by name, and a function of a direction
    [B, K] in the logits that gives each tap's delta [B, out], d <direction, f(x)> / dz.
    Evaluation mode.
    """
    writes, _ = wiring(net)
    widths = {tap: len(state.params[m]["kernel"][0]) for m, tap in writes.items()}
    taps = {tap: jnp.zeros((len(x), width)) for tap, width in widths.items()}

    def outputs(taps):
        logits, acts, _ = net.apply(state, x, train=False, key=None, taps=taps)
        return logits, acts

    logits, back, acts = jax.vjp(outputs, taps, has_aux=True)
    return logits, acts, lambda direction: back(direction)[0]


def inputs_of(net: Network, state: NetState, acts: PyTree) -> dict[str, Array]:
    """Module -> what it reads [B, in], of a network of dense layers."""
    kernels = {name: layer["kernel"] for name, layer in state.params.items()}
    return units.layer_inputs(net.units, kernels, acts)


def _dense(net, state: NetState, x, directions: Directions, count: int, power: int):
    size, (writes, _) = SIZES[power], wiring(net)
    logits, acts, back = tapped(net, state, x)

    def add(total, direction, weight):
        return jax.tree.map(
            lambda t, d: t + weight[:, None] * size(d), total, back(direction)
        )

    zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(back, logits))
    deltas = over_directions(add, zeros, logits, directions, count)
    inputs, total = inputs_of(net, state, acts), {}
    for name, layer in state.params.items():
        a, d = inputs[name], deltas[writes[name]]
        sums = {"kernel": size(a).T @ d, "bias": d.sum(axis=0)}
        total[name] = {leaf: sums[leaf] for leaf in layer}
    return _anchors.in_use(net, state, total)


def _any(net, state: NetState, x, directions: Directions, count: int, power: int):
    size, chunk = SIZES[power], math.gcd(len(x), CHUNK)

    def along(params, x, direction):
        at = state._replace(params=params)
        return jnp.vdot(direction, net.apply(at, x[None], train=False, key=None)[0][0])

    gradients = jax.vmap(jax.grad(along), (None, 0, 0))

    def add_chunk(total, rows):
        x, direction, weight = rows
        grads = gradients(state.params, x, direction)
        return jax.tree.map(
            lambda t, g: t + jnp.tensordot(weight, size(g), 1), total, grads
        ), None

    def add(total, direction, weight):
        rows = [r.reshape(-1, chunk, *r.shape[1:]) for r in (x, direction, weight)]
        return jax.lax.scan(add_chunk, total, tuple(rows))[0]

    logits = net.apply(state, x, train=False, key=None)[0]
    zeros = jax.tree.map(jnp.zeros_like, state.params)
    total = over_directions(add, zeros, logits, directions, count)
    return _anchors.in_use(net, state, total)


def over_directions(add, zeros: PyTree, logits, directions: Directions, count: int):
    """`add(total, direction, weight)` over `count` directions, from `zeros`."""

    def body(total, i):
        direction, weight = directions(logits, i)
        # Outputs that no example has in play cost nothing where lanes run one by one.
        return jax.lax.cond(
            jnp.any(weight > 0.0), add, lambda t, *_: t, total, direction, weight
        ), None

    return jax.lax.scan(body, zeros, jnp.arange(count))[0]


def check_examples(examples: int | None, field: str) -> None:
    """Raise ValueError for a number of examples that nothing can be averaged over."""
    if examples is not None and examples < 1:
        raise ValueError(f"{field}={examples}: take 1 or more, or None for all")


def task_mean(
    spec: StreamSpec,
    examples: int | None,
    train: TrainBatches,
    zeros: PyTree,
    of_batch: Callable[[Array, Batch], tuple[PyTree, Array]],
) -> PyTree:
    """Sum over one pass of a task's training batches, over the sum of their weights.

    `of_batch(i, batch)` gives a tree like `zeros` and its weight; the pass ends after
    `examples` examples, the rest of its last batch having weight 0. None is all but
    those of an incomplete last batch; where tasks differ in size, as many as the
    smallest has in whole batches.
    """
    size = spec.batch_size
    available = max(1, spec.examples_per_task // size) * size
    wanted = min(examples or available, available)

    def body(i, running):
        batch = train(i)
        counts = i * size + jnp.arange(size) < wanted
        batch = batch._replace(weight=jnp.where(counts, batch.weight, 0.0))
        return jax.tree.map(jnp.add, running, of_batch(i, batch))

    start = (zeros, jnp.zeros(()))
    total, weight = jax.lax.fori_loop(0, -(-wanted // size), body, start)
    return jax.tree.map(lambda t: t / jnp.maximum(weight, 1e-12), total)
