"""What rehearsal methods share: the loss of stored examples, and its share of the whole."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench.losses import mask_logits, weighted_mean
from cl_bench.methods import _memory
from cl_bench.methods._memory import Memory
from cl_bench.types import Batch, Key, Learner, Network, PyTree, StreamSpec


def check_size(size: int | None) -> None:
    """Raise ValueError for a replayed batch without examples."""
    if size is not None and size < 1:
        raise ValueError(
            f"replay_batch_size={size}: at least 1, or None for the stream's own; "
            "without replay, the method is backprop"
        )


def check_weighting(weighting: str, known: tuple[str, ...]) -> None:
    """Raise ValueError for a weighting that does not exist here."""
    if weighting not in known:
        why = ""
        if weighting == "by_task":
            why = " (the number of the task is known to naive_rehearsal only)"
        raise ValueError(f"weighting={weighting!r} is none of {', '.join(known)}{why}")


def logits_of(
    net: Network, key: Key, params: PyTree, learner: Learner, x: Array
) -> Array:
    """Unmasked training-mode logits [n, K] of stored inputs, by themselves.

    # Departs from the papers where the network has batch normalisation: stored examples
    # are a batch of their own, and running statistics follow the stream's batch alone.
    """
    state = learner.net._replace(params=params)
    return net.apply(state, x, train=True, key=key)[0]


def mean_loss(spec: StreamSpec, logits: Array, batch: Batch) -> Array:
    """The stream's loss under the batch's weights and classes, from unmasked logits."""
    masked = mask_logits(logits, batch.classes)
    return weighted_mean(spec.loss.per_example(masked, batch.y), batch.weight)


def share(
    weighting: str,
    replay_weight: Array | float,
    batch: Batch,
    old: Batch,
    task: Array | int = 1,
) -> Array:
    """The replayed examples' share a of the loss (1 - a) current + a replayed.

    With r = `replay_weight`, which scales the replayed term before the two are divided
    by their total weight; at r = 0, or without stored examples, a = 0.
    'union': r n' / (n + r n'), r = 1 is the mean over all n + n' examples.
    'half': r / (1 + r). 'by_task': r t / (1 + r t) after t tasks, r = 1 is 1 / (t + 1)
    for the current task (van de Ven's code).
    """
    some = (jnp.sum(old.weight) > 0).astype(jnp.float32)
    against = {
        "union": jnp.sum(old.weight) / jnp.maximum(jnp.sum(batch.weight), 1e-12),
        "half": some,
        "by_task": some * task,
    }[weighting]
    return replay_weight * against / (1.0 + replay_weight * against)


def rehearsing(
    net: Network, spec: StreamSpec, size: int, weighting: str, weight: Array | float
) -> Callable[..., Array]:
    """What makes the loss of a batch (1 - a) L(batch) + a L(replayed), added to it.

    (key, params, learner, memory, batch, unmasked logits of the batch, number of the
    task, places [M] to draw from or None for all) -> (); `size` stored examples are
    drawn, and a is their `share`.
    """

    def added(key, params, learner, memory: Memory, batch, logits, task=1, places=None):
        pick, forward = (jax.random.fold_in(key, i) for i in range(2))
        old, _ = _memory.sample(pick, spec, memory, size, places)
        part = share(weighting, weight, batch, old, task)
        recalled = logits_of(net, forward, params, learner, old.x)
        replayed = mean_loss(spec, recalled, old)
        return mixed(mean_loss(spec, logits, batch), replayed, part)

    return added


def mixed(current: Array, replayed: Array, part: Array) -> Array:
    """What has to be added to `current` for (1 - part) current + part replayed."""
    return part * (replayed - current)
