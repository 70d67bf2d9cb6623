"""What the measures of task similarity read of a network, and from which examples."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from cl_bench import shapes, units
from cl_bench.losses import mask_logits, weighted_mean
from cl_bench.methods import _example_gradients
from cl_bench.metrics import _held_out, _similarity
from cl_bench.types import Batch, Network, Probe, PyTree, StreamSpec


class Reading(NamedTuple):
    """Of which network, and how many test examples of a task; static."""

    net: Network
    spec: StreamSpec
    minibatches: int
    examples: int


class Left(NamedTuple):
    """A measure of what tasks leave behind: one array of a static shape at each end."""

    shape: PyTree  # of jax.ShapeDtypeStruct
    of: Callable[[Probe], PyTree]
    compare: Callable[[PyTree, PyTree], Array]  # of two tasks


def left_behind(reading: Reading, threshold: float) -> dict[str, Left]:
    """The kinds that compare what two tasks left behind, each at its own end."""

    def left(shape, of, compare):
        return Left(shape, partial(of, reading), compare)

    kernels = shapes.kernels(reading.net)
    size = sum(leaf.size for leaf in jax.tree.leaves(shapes.params(reading.net)))
    rows = reading.examples // reading.spec.num_tasks * reading.spec.num_tasks
    bases = {
        name: _struct(k.shape[-2], min(k.shape[-2], reading.examples))
        for name, k in kernels.items()
    }
    features = _struct(rows, _width(reading))
    own = partial(_bases, threshold)
    return {
        "fisher_overlap": left(_struct(size), _fisher, _similarity.fisher_overlap),
        "linear_cka": left(features, _features_of_all, _similarity.linear_cka),
        "subspace_overlap": left(bases, own, _mean_overlap),
    }


def gradient_cosines(reading: Reading, probe: Probe, tasks: Array) -> Array:
    """[T, T] at the network of now; NaN for tasks to come."""
    spec, state = reading.spec, probe.learner.net

    def gradient(task):
        batch = read_test(reading, probe, task, reading.examples)

        def loss(params):
            at = state._replace(params=params)
            logits = reading.net.apply(at, batch.x, train=False, key=None)[0]
            masked = mask_logits(logits, batch.classes)
            values = spec.loss.per_example(masked, batch.y)
            return weighted_mean(values, _counted(batch))

        return ravel_pytree(jax.grad(loss)(state.params))[0]

    nothing = jnp.zeros(sum(leaf.size for leaf in jax.tree.leaves(state.params)))

    def of(task):
        return jax.lax.cond(
            task <= probe.clock.task, gradient, lambda task: nothing, task
        )

    return _similarity.gradient_cosines(jax.lax.map(of, tasks))


def probe_transfer(reading: Reading, probe: Probe, tasks: Array) -> Array:
    """[T] of the network of now on every task."""
    spec = reading.spec
    drawn = reading.net.init(jax.random.key(0, impl="threefry2x32"))

    def accuracy(features, batch):
        fitted, counted = _halves(batch.weight)
        y = batch.y
        targets = jax.nn.one_hot(y, spec.num_outputs) if y.ndim == 1 else y
        outputs = _similarity.probe_outputs(features, targets, fitted)
        score = jnp.sum(counted * spec.loss.score(outputs, y)) / jnp.sum(counted)
        return jnp.where(jnp.all(jnp.isfinite(outputs)), score, jnp.nan)

    def on(task):
        batch = read_test(reading, probe, task, reading.examples)
        acts = reading.net.apply(drawn, batch.x, train=False, key=None)[1]
        now, first = _features(reading, probe, batch), _last(reading, batch, acts)
        return accuracy(now, batch) - accuracy(first, batch)

    return jax.lax.map(on, tasks)


def read_test(reading: Reading, probe: Probe, task: Array, count: int) -> Batch:
    """`count` test examples of a task, evenly spaced, as one batch.

    Where there are fewer, the repeated ones have weight 0.
    """
    read = jax.vmap(lambda i: probe.held_out(task, "test", i))
    several = read(jnp.arange(reading.minibatches, dtype=jnp.int32))
    merged = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), several)
    real = jnp.sum(merged.weight > 0.0).astype(jnp.int32)  # padding comes last
    rows = jnp.arange(count) * real // count
    batch: Batch = jax.tree.map(lambda a: a[rows], merged)
    new = jnp.concatenate([jnp.ones(1, bool), rows[1:] != rows[:-1]])
    return batch._replace(weight=jnp.where(new, batch.weight, 0.0))


def _fisher(reading: Reading, probe: Probe) -> Array:
    """sqrt(F / tr F) [parameters] of the diagonal empirical Fisher on the task's own."""
    batch = read_test(reading, probe, probe.clock.task, reading.examples)

    def directions(logits, i):
        del i

        def loss(logits):
            masked = mask_logits(logits, batch.classes)
            return jnp.sum(reading.spec.loss.per_example(masked, batch.y))

        return jax.grad(loss)(logits), _counted(batch)

    of_examples = _example_gradients.make(reading.net, reading.spec)
    sums = of_examples(probe.learner.net, batch.x, directions, 1, 2)
    return _similarity.root_of_share(ravel_pytree(sums)[0])


def _features_of_all(reading: Reading, probe: Probe) -> Array:
    """Centred features [examples, d] on equally many examples of every task."""
    count = reading.spec.num_tasks
    each = reading.examples // count

    def of(task):
        batch = read_test(reading, probe, task, each)
        return _features(reading, probe, batch), batch.weight

    features, weight = jax.lax.map(of, jnp.arange(count, dtype=jnp.int32))
    joined = features.reshape(count * each, -1)
    return _similarity.centred(joined, weight.reshape(-1))


def _bases(threshold: float, reading: Reading, probe: Probe) -> dict[str, Array]:
    """Module -> basis of what it reads of the task's own examples."""
    batch = read_test(reading, probe, probe.clock.task, reading.examples)
    acts = probe.predict(probe.learner, batch)[1]
    params = probe.learner.net.params
    kernels = {name: layer["kernel"] for name, layer in params.items()}
    inputs = units.layer_inputs(reading.net.units, kernels, acts)
    real = (batch.weight > 0.0)[:, None]
    return {
        name: _similarity.input_basis(jnp.where(real, a, 0.0), threshold)
        for name, a in inputs.items()
    }


def _mean_overlap(bases_i: dict[str, Array], bases_j: dict[str, Array]) -> Array:
    found = jax.tree.map(_similarity.subspace_overlap, bases_i, bases_j)
    return jnp.mean(jnp.stack(jax.tree.leaves(found)))


def _features(reading: Reading, probe: Probe, batch: Batch) -> Array:
    """[n, d] of the last hidden layer, as the method predicts."""
    return _last(reading, batch, probe.predict(probe.learner, batch)[1])


def _last(reading: Reading, batch: Batch, acts: dict[str, Array]) -> Array:
    hidden = reading.net.units
    features = acts[hidden[-1].name] if hidden else batch.x
    return features.reshape(len(batch.x), -1)


def _counted(batch: Batch) -> Array:
    """[n] weights without the examples whose label is not in play."""
    there = _held_out.in_play(batch.y, batch.classes)
    return jnp.where(there, batch.weight, 0.0)


def _halves(weight: Array) -> tuple[Array, Array]:
    """Every other example, to fit on, and the rest, as weights [n]."""
    even = jnp.cumsum(weight > 0.0) % 2 == 0
    return jnp.where(even, 0.0, weight), jnp.where(even, weight, 0.0)


def _width(reading: Reading) -> int:
    """Features of the last hidden layer, all positions of a feature map."""
    if not reading.net.units:
        return math.prod(reading.spec.input_shape)
    acts = shapes.activations(reading.net, reading.spec)
    return acts[reading.net.units[-1].name].size


def _struct(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)
