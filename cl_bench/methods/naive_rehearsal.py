"""Naive rehearsal: at its end each task leaves a random, equal share of the memory."""

import jax
import jax.numpy as jnp
from flax import struct

from cl_bench import optimizers
from cl_bench.methods import _memory, _replay, _shares
from cl_bench.methods._compose import compose
from cl_bench.types import Method, Network, StreamSpec

REFERENCE = (
    "Hsu et al., 2018 (arXiv 1810.12488), naive rehearsal, released code (GT-RIPL/"
    "Continual-Learning-Benchmark); weighting 'by_task': van de Ven and Tolias, 2019 "
    "(arXiv 1904.07734), released code"
)
NEEDS = frozenset({"boundaries"})
NEUTRAL = {"replay_weight": 0.0}
WEIGHTINGS = ("union", "half", "by_task")


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """Capacity of "Naive rehearsal" on Split MNIST; 4400 is "Naive rehearsal-C".

    None replays as many examples as the stream's batch has.
    """

    replay_weight: float = 1.0
    capacity: int = struct.field(pytree_node=False, default=1100)
    replay_batch_size: int | None = struct.field(pytree_node=False, default=None)
    weighting: str = struct.field(pytree_node=False, default="union")


def check(hyper: Hyper) -> None:
    """Raise ValueError for an option that does not exist or an empty replay."""
    _replay.check_weighting(hyper.weighting, WEIGHTINGS)
    _replay.check_size(hyper.replay_batch_size)


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """From the second task on, (1 - a) L(batch) + a L(replayed), a of `_replay.share`;
    after task t (from 1) the memory holds M // t random examples of each task so far.

    # Departs from the released code: it shuffles the task's examples with about as many
    # (repeated) stored ones and walks through all of them, twice as many steps a task;
    # here every batch is half new and half old. A stream of half the batch size, and
    # replay_batch_size=None, makes the same number of steps on batches of the same size
    # (but in the first task, where they are half as large).

    Raises ValueError where there is less than one example a task.
    """
    check(hyper)
    _shares.check(spec, hyper.capacity)
    size = hyper.replay_batch_size or spec.batch_size
    rehearsed = _replay.rehearsing(
        net, spec, size, hyper.weighting, hyper.replay_weight
    )

    def extra(state):
        del state
        return {"shares": _shares.empty(spec, hyper.capacity)}

    def extra_loss(key, clock, params, learner, batch, logits):
        memory = _memory.note(learner.extra["shares"].memory, batch)

        def rehearse(params, logits):
            return rehearsed(key, params, learner, memory, batch, logits, clock.task)

        # The first task has nothing to rehearse, and does not pay for it.
        none = lambda params, logits: jnp.zeros(())
        return jax.lax.cond(clock.task > 0, rehearse, none, params, logits)

    def end_task(key, clock, train, learner):
        shares = learner.extra["shares"]
        shares = _shares.end_task(key, spec, shares, clock.task, train)
        return learner._replace(extra={**learner.extra, "shares": shares})

    return compose(
        net,
        spec,
        optimizers.make(hyper),
        extra=extra,
        extra_loss=extra_loss,
        end_task=end_task,
    )
