"""The diagonal of the Fisher information, over a task's training examples."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench.losses import mask_logits, squared_error, weighted_mean
from cl_bench.methods import _example_gradients
from cl_bench.types import (
    Batch,
    Key,
    NetState,
    Network,
    PyTree,
    StreamSpec,
    TrainBatches,
)

ESTIMATORS = ("exact", "sampled", "empirical", "predicted", "batched")
Fisher = Callable[[Key, TrainBatches, NetState], PyTree]


def check(estimator: str, examples: int | None) -> None:
    """Raise ValueError for an estimator or a number of examples that cannot be."""
    if estimator not in ESTIMATORS:
        raise ValueError(f"estimator={estimator!r} is none of {', '.join(ESTIMATORS)}")
    _example_gradients.check_examples(examples, "fisher_examples")


def require_classes(spec: StreamSpec) -> None:
    """Raise ValueError for a stream of regressions."""
    if spec.loss is squared_error:
        raise ValueError(
            "this Fisher information is that of class probabilities, and the stream is "
            "a regression: take the method mas, si or l2_previous there"
        )


def make(
    net: Network, spec: StreamSpec, estimator: str, examples: int | None
) -> Fisher:
    """F_i = mean over examples x of E_y [(d log p(y | x) / d theta_i)^2].

    p is the model's, over the outputs in play; evaluation mode, one pass of at most
    `examples` examples (None: all). What y is:
      'exact': every output, weighted by p(y | x); one backward pass an output.
      'sampled': one draw of p(y | x) an example.
      'empirical': the label.
      'predicted': the output of largest p.
      'batched': the label; the mean over mini-batches of the square of the mini-batch's
      mean gradient, which is not a Fisher information: about 1 / batch_size of
      'empirical', plus the squared mean gradient (van de Ven, ICLR blog post 2025).

    Raises ValueError where the loss is not one of classes.
    """
    check(estimator, examples)
    require_classes(spec)
    of_examples = _example_gradients.make(net, spec)

    def fisher(key: Key, train: TrainBatches, state: NetState) -> PyTree:
        def of_batch(i: Array, batch: Batch) -> tuple[PyTree, Array]:
            if estimator == "batched":
                return _squared_mean(net, spec, state, batch), jnp.ones(())
            at = jax.random.fold_in(key, i)
            of_labels, count = directions(spec, estimator, at, batch)
            sums = of_examples(state, batch.x, of_labels, count, 2)
            return sums, jnp.sum(batch.weight)

        zeros = jax.tree.map(jnp.zeros_like, state.params)
        return _example_gradients.task_mean(spec, examples, train, zeros, of_batch)

    return fisher


def directions(spec: StreamSpec, estimator: str, key: Key, batch: Batch):
    """d loss / d logits of the labels that the estimator takes, and their weights.

    Returns a function (logits, i) -> direction [B, K], weight [B], and how many i.
    """

    def of_label(logits, i):
        masked = mask_logits(logits, batch.classes)
        label, share = jnp.full(len(batch.x), i), 1.0
        if estimator == "exact":
            share = spec.loss.predictive(masked)[:, i]
        elif estimator == "sampled":
            label = jax.random.categorical(key, masked)
        elif estimator == "empirical":
            label = batch.y
        else:
            label = jnp.argmax(masked, axis=-1)

        def loss(logits):
            masked = mask_logits(logits, batch.classes)
            return jnp.sum(spec.loss.per_example(masked, label))

        return jax.grad(loss)(logits), share * batch.weight

    return of_label, spec.num_outputs if estimator == "exact" else 1


def _squared_mean(net, spec: StreamSpec, state: NetState, batch: Batch) -> PyTree:
    def loss(params):
        at = state._replace(params=params)
        logits = net.apply(at, batch.x, train=False, key=None)[0]
        masked = mask_logits(logits, batch.classes)
        return weighted_mean(spec.loss.per_example(masked, batch.y), batch.weight)

    return jax.tree.map(jnp.square, jax.grad(loss)(state.params))
