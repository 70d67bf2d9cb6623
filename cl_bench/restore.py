"""Best-validation restore: a rule of some benchmarks, for every method alike.

The network that scores best on a task's 'fit' examples at its segment ends takes the
place of the last one when the task ends; the optimiser's moments stay. Source: the
class-incremental CIFAR-100 of Dohare et al., Nature 632 (2024), released code.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench.types import Learner, NetState, Probe, PyTree, StreamSpec


class Best(NamedTuple):
    """The best network of the current task so far."""

    score: Array  # () float32, -1 before the first segment end
    net: NetState


def start(spec: StreamSpec, learner: Learner) -> PyTree:
    """Nothing seen of this task yet; () where the benchmark has no such rule."""
    return Best(jnp.float32(-1.0), learner.net) if spec.restore_best else ()


def update(spec: StreamSpec, probe: Probe, best: PyTree) -> PyTree:
    """Keep the probed network if it scores higher than the best one so far."""
    if not spec.restore_best:
        return best
    score = _fit_score(spec, probe)
    better = score > best.score  # False for NaN: a broken network is never the best
    net = jax.tree.map(
        lambda new, old: jnp.where(better, new, old), probe.learner.net, best.net
    )
    return Best(jnp.where(better, score, best.score), net)


def put_back(spec: StreamSpec, learner: Learner, best: PyTree) -> Learner:
    """The learner with the best network of the task."""
    return learner._replace(net=best.net) if spec.restore_best else learner


def _fit_score(spec: StreamSpec, probe: Probe) -> Array:
    """Mean score over the first `spec.restore_best` minibatches of 'fit'."""

    def body(i: Array, sums: tuple[Array, Array]) -> tuple[Array, Array]:
        batch = probe.held_out(probe.clock.task, "fit", i)
        logits, _ = probe.predict(probe.learner, batch)
        scores = spec.loss.score(logits, batch.y)
        return sums[0] + jnp.sum(scores * batch.weight), sums[1] + jnp.sum(batch.weight)

    zero = jnp.zeros(())
    total, count = jax.lax.fori_loop(0, spec.restore_best, body, (zero, zero))
    return total / jnp.maximum(count, 1.0)
