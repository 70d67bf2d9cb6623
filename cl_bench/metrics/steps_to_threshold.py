"""Time to relearn: steps of a task until its online accuracy reaches a level."""

import jax.numpy as jnp
import numpy as np

from cl_bench.losses import weighted_mean
from cl_bench.metrics._parts import metric
from cl_bench.types import Metric, Network, StreamSpec


def make(
    net: Network, spec: StreamSpec, *, level: float = 0.8, window: int | None = None
) -> Metric:
    """`steps_to_threshold` and `threshold_reached` (1 or 0), at the end of each task.

    A task is cut into windows of `window` steps (None: a twentieth of the shortest
    task). The number is of steps from the task's start to the end of the first window
    whose mean online score is at least `level`; NaN in a task that has none. A mean over
    tasks is of those that reached the level only: read it beside `threshold_reached`.
    A window that the task's end cuts off does not count.

    Raises ValueError for a level outside (0, 1] or a window longer than a task.
    """
    del net
    shortest = int(np.min(spec.steps_per_task))
    size = max(1, shortest // 20) if window is None else window
    if not 0.0 < level <= 1.0:
        raise ValueError(f"level={level}: above 0, at most 1")
    if not 1 <= size <= shortest:
        raise ValueError(f"window={window}: between 1 and a task's {shortest} steps")

    def init():
        return {"score": jnp.zeros(()), "reached": jnp.zeros(())}  # reached 0: not yet

    def update(state, clock, batch, learner, signals):
        del learner
        score = weighted_mean(spec.loss.score(signals.logits, batch.y), batch.weight)
        score = state["score"] + score
        step = clock.step_in_task + 1
        full = step % size == 0
        # A sum of float32 shares may fall just short of the level it stands for.
        enough = score >= level * size * (1.0 - 1e-6)
        now = full & enough & (state["reached"] == 0.0)
        return {
            "score": jnp.where(full, 0.0, score),
            "reached": jnp.where(now, step.astype(jnp.float32), state["reached"]),
        }

    def read(state, probe):
        del probe
        steps = state["reached"]
        return {
            "steps_to_threshold": jnp.where(steps > 0.0, steps, jnp.nan),
            "threshold_reached": (steps > 0.0).astype(jnp.float32),
        }

    return metric(init=init, update=update, read=read)
