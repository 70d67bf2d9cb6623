"""Dark experience replay (DER): stored examples keep the logits they once had."""

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from cl_bench import optimizers
from cl_bench.methods import _memory, _replay
from cl_bench.methods._compose import compose
from cl_bench.types import Method, Network, StreamSpec

REFERENCE = (
    "Buzzega et al., NeurIPS 2020 (arXiv 2004.07211), Algorithm 1; released code "
    "(aimagelab/mammoth)"
)
NEEDS: frozenset[str] = frozenset()
NEUTRAL = {"alpha": 0.0}
NORMALISERS = ("mean", "sum")


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """Split CIFAR-10 with 500 stored examples; None: as many as the stream's batch.

    The published values of alpha belong to the released code's `normalise` 'mean'; the
    paper's equation is 'sum', whose alpha is K times smaller.
    """

    alpha: float = 0.3
    capacity: int = struct.field(pytree_node=False, default=500)
    replay_batch_size: int | None = struct.field(pytree_node=False, default=None)
    normalise: str = struct.field(pytree_node=False, default="mean")


def check(hyper: Hyper) -> None:
    """Raise ValueError for an option that does not exist or an empty replay."""
    if hyper.normalise not in NORMALISERS:
        raise ValueError(
            f"normalise={hyper.normalise!r} is none of {', '.join(NORMALISERS)}"
        )
    _replay.check_size(hyper.replay_batch_size)


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """L(batch) + alpha mean ||z' - f(x')||^2 over a random batch (x', z') of a reservoir.

    z' are the training-mode logits of x' just before the update of the step in which it
    came. See `squared_distance` for outputs that were not in play then. Raises
    ValueError for a memory that is too small or does not fit (`_memory.check`).
    """
    return with_labels(net, spec, hyper, None)


def with_labels(
    net: Network, spec: StreamSpec, hyper: Hyper, beta: Array | float | None
) -> Method:
    """DER, plus beta times the loss of a second random batch where beta is not None."""
    check(hyper)
    _memory.check(spec, hyper.capacity, "reservoir")
    size = hyper.replay_batch_size or spec.batch_size

    def extra(state):
        del state
        memory = _memory.empty(spec, hyper.capacity, "reservoir", keep_logits=True)
        return {"memory": memory}

    def extra_loss(key, clock, params, learner, batch, logits):
        del clock, logits
        keys = [jax.random.fold_in(key, i) for i in range(4)]
        memory = _memory.note(learner.extra["memory"], batch)
        old, place = _memory.sample(keys[0], spec, memory, size)
        now = _replay.logits_of(net, keys[1], params, learner, old.x)
        distance = squared_distance(
            memory.logits[place], now, memory.classes[place], hyper.normalise
        )
        total = hyper.alpha * jnp.mean(distance * old.weight)
        if beta is not None:
            old, _ = _memory.sample(keys[2], spec, memory, size)
            now = _replay.logits_of(net, keys[3], params, learner, old.x)
            total += beta * _replay.mean_loss(spec, now, old)
        return total

    def after_step(key, clock, batch, signals, learner):
        del clock
        memory = learner.extra["memory"]
        memory = _memory.reservoir(key, memory, batch, signals.logits)
        return learner._replace(extra={**learner.extra, "memory": memory})

    return compose(
        net,
        spec,
        optimizers.make(hyper),
        extra=extra,
        extra_loss=extra_loss,
        after_step=after_step,
    )


def squared_distance(then: Array, now: Array, classes: Array, normalise: str) -> Array:
    """||then - now||^2 [n] over the outputs in play then; 'mean' divides by their number.

    # Departs from the paper where only some outputs are in play: the others had no
    # target then, and their logits of that time are not held on to. With every output
    # in play, as in the paper's training, nothing differs.
    """
    error = jnp.sum(jnp.square(jnp.where(classes, then - now, 0.0)), axis=-1)
    if normalise == "sum":
        return error
    return error / jnp.maximum(jnp.sum(classes, axis=-1), 1)
