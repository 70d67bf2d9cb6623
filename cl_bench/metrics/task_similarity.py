"""Task similarity: five measures of how alike every two tasks are to a network."""

import jax
import jax.numpy as jnp

from cl_bench import shapes
from cl_bench.metrics import _held_out, _measures
from cl_bench.metrics._parts import metric
from cl_bench.types import Metric, Network, StreamSpec

SYMMETRIC = ("fisher_overlap", "gradient_cosine", "linear_cka", "subspace_overlap")
KINDS = (*SYMMETRIC, "probe_transfer")


def make(
    net: Network,
    spec: StreamSpec,
    *,
    kinds: tuple[str, ...] = KINDS,
    examples: int = 500,
    minibatches: int = 5,
    threshold: float = 0.97,
) -> Metric:
    """`similarity_<kind>/<i>_<j>` at the end of each task; NaN for what has not come.

    All kinds read `examples` test examples a task (or as many as there are), evenly
    spaced in its first `minibatches` test minibatches. Which network each is of:
      'fisher_overlap': the diagonal empirical Fisher information on task i at the end
        of task i, and on task j at the end of task j.
      'gradient_cosine': the mean gradients of both tasks at the network of now, so that
        the number of a pair changes from task to task.
      'linear_cka': the last hidden layer at the end of task i and at the end of task j,
        on the same `examples` examples, equally many of every task. Biased upwards
        where the layer is not much narrower than there are examples.
      'subspace_overlap': what each layer reads of task i at the end of task i, and of
        task j at the end of task j: bases that hold `threshold` of the energy; mean
        over the layers.
      'probe_transfer': accuracy on task j of a linear probe on the last hidden layer at
        the end of task i, minus that on a network just drawn (the same in every run).
        Fitted on every other test example of task j, scored on the rest; also of tasks
        j after i, which makes it forward transfer.

    The first four are symmetric and 1 for i = j: only i < j is recorded. Features are
    those that the method predicts with; Fisher and gradients are of its network as such
    and of the outputs in play now: NaN for a task whose labels are not.

    Memory in floats, for T tasks: T * parameters (Fisher), T * examples * width (CKA),
    T * in * min(in, examples) a layer (subspaces).

    Raises ValueError for a kind, a number or a threshold that cannot be, for more than
    50 tasks, and for convolutions with 'subspace_overlap'.
    """
    _check(spec, kinds, examples, minibatches, threshold)
    reading = _measures.Reading(net, spec, minibatches, examples)
    if "subspace_overlap" in kinds:
        shapes.require_dense(
            shapes.kernels(net), "subspace_overlap", ", or leave it out of kinds="
        )
    left = {
        kind: measure
        for kind, measure in _measures.left_behind(reading, threshold).items()
        if kind in kinds
    }
    count = spec.num_tasks
    tasks = jnp.arange(count, dtype=jnp.int32)

    def init():
        stored = {
            kind: jax.tree.map(lambda s: jnp.zeros((count, *s.shape)), measure.shape)
            for kind, measure in left.items()
        }
        nothing = jnp.full((count, count), jnp.nan)
        return {"left": stored, "pairs": dict.fromkeys(kinds, nothing)}

    def end_task(state, probe):
        task = probe.clock.task
        stored, pairs = dict(state["left"]), dict(state["pairs"])
        for kind, measure in left.items():
            own = measure.of(probe)
            every = jax.tree.map(lambda a, b: a.at[task].set(b), stored[kind], own)

            def with_own(earlier, own=own, measure=measure):
                return measure.compare(earlier, own)

            # Only of tasks before this one; the rest of the column is not recorded.
            pairs[kind] = pairs[kind].at[:, task].set(jax.lax.map(with_own, every))
            stored[kind] = every
        if "gradient_cosine" in kinds:
            pairs["gradient_cosine"] = _measures.gradient_cosines(reading, probe, tasks)
        if "probe_transfer" in kinds:
            row = _measures.probe_transfer(reading, probe, tasks)
            pairs["probe_transfer"] = pairs["probe_transfer"].at[task].set(row)
        return {"left": stored, "pairs": pairs}

    def read(state, probe):
        del probe
        return {
            f"similarity_{kind}/{i}_{j}": values[i, j]
            for kind, values in state["pairs"].items()
            for i in range(count)
            for j in range(count)
            if i < j or kind not in SYMMETRIC
        }

    return metric(init=init, read=read, end_task=end_task)


def _check(spec: StreamSpec, kinds, examples, minibatches, threshold) -> None:
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"kind {kind!r} is none of {', '.join(KINDS)}")
    if spec.num_tasks > _held_out.ALL_TASKS:
        raise ValueError(
            f"task_similarity of {spec.num_tasks} tasks has a number for every pair of "
            f"them: take a stream of at most {_held_out.ALL_TASKS}"
        )
    _held_out.check(spec, minibatches)
    if examples < max(2, spec.num_tasks):
        raise ValueError(
            f"examples={examples} must be at least 2 and one a task, here "
            f"{spec.num_tasks}"
        )
    if not 0.0 < threshold <= 1.0:
        raise ValueError(f"threshold={threshold}: above 0 and at most 1")
