"""Experience replay: every step also trains on a random batch of stored examples."""

from flax import struct

from cl_bench import optimizers
from cl_bench.methods import _memory, _replay
from cl_bench.methods._compose import compose
from cl_bench.types import Method, Network, StreamSpec

REFERENCE = (
    "Chaudhry et al., 2019 (arXiv 1902.10486), Algorithm 1; memory: Vitter, ACM TOMS 11 "
    "(1985) 37-57, Algorithm R, or Chrysakis and Moens, ICML 2020, Algorithm 1 (known "
    "to us from other implementations of it)"
)
NEEDS: frozenset[str] = frozenset()
NEUTRAL = {"replay_weight": 0.0}
POLICIES = ("reservoir", "class_balanced")
WEIGHTINGS = ("union", "half")  # 'by_task' needs to know the tasks: naive_rehearsal


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """The paper replays as many examples as it is given (None), both weighing alike.

    It varies the capacity; 1000 examples is a choice of this suite.
    """

    replay_weight: float = 1.0
    capacity: int = struct.field(pytree_node=False, default=1000)
    replay_batch_size: int | None = struct.field(pytree_node=False, default=None)
    policy: str = struct.field(pytree_node=False, default="reservoir")
    weighting: str = struct.field(pytree_node=False, default="union")


def check(hyper: Hyper) -> None:
    """Raise ValueError for an option that does not exist or an empty replay."""
    if hyper.policy not in POLICIES:
        why = " (a ring needs boundaries: agem, gem)" if hyper.policy == "ring" else ""
        raise ValueError(
            f"policy={hyper.policy!r} is none of {', '.join(POLICIES)}{why}"
        )
    _replay.check_weighting(hyper.weighting, WEIGHTINGS)
    _replay.check_size(hyper.replay_batch_size)


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """Gradient of (1 - a) L(batch) + a L(replayed), a as in `_replay.share`.

    The replayed examples are drawn from the memory as it was before the step; then the
    memory takes the batch in. Raises ValueError for a memory that is too small or does
    not fit (`_memory.check`).

    # Departs from the paper: stored examples are drawn with replacement.
    """
    check(hyper)
    _memory.check(spec, hyper.capacity, hyper.policy)
    size = hyper.replay_batch_size or spec.batch_size
    rehearsed = _replay.rehearsing(
        net, spec, size, hyper.weighting, hyper.replay_weight
    )

    def extra(state):
        del state
        return {"memory": _memory.empty(spec, hyper.capacity, hyper.policy)}

    def extra_loss(key, clock, params, learner, batch, logits):
        del clock
        memory = _memory.note(learner.extra["memory"], batch)
        return rehearsed(key, params, learner, memory, batch, logits)

    def after_step(key, clock, batch, signals, learner):
        del clock, signals
        take_in = getattr(_memory, hyper.policy)
        memory = take_in(key, learner.extra["memory"], batch)
        return learner._replace(extra={**learner.extra, "memory": memory})

    return compose(
        net,
        spec,
        optimizers.make(hyper),
        extra=extra,
        extra_loss=extra_loss,
        after_step=after_step,
    )
