"""The contract of a stream: what it says in its spec is what its batches are."""

from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cl_bench.lane import run_key
from cl_bench.schedule import schedule
from cl_bench.testing._batches import Case, check_batch, check_in_play, make_case
from cl_bench.testing._compare import (
    differ,
    require,
    require_equal,
    require_same_structure,
)
from cl_bench.testing._examples import check_held_out, check_one_pass
from cl_bench.types import StreamSpec

SCENARIOS = ("task", "domain", "class", "online")
OFFERS = frozenset({"boundaries", "task_id", "validation"})
FEW = 8  # minibatches read of a task that is not read whole


def check_stream(module: ModuleType, **static: Any) -> None:
    """Raise ConformanceError where a stream module breaks the contract of streams.

    The spec is hashable and consistent; batches have its shapes and dtypes, and labels
    in play; equal keys give equal tasks, other tasks and other keys give others; one
    pass shows every example once (where a pass is a task's examples); held-out batches
    are padded with weight 0, stay in play once their task has come, and share no
    example with training; every function traces and vmaps.

    Args:
      module: the stream's, with REFERENCE and make(**static).
      static: settings of make; take a small data set, a pass of it is read.
    """
    reference = getattr(module, "REFERENCE", None)
    require(
        isinstance(reference, str) and reference,
        f"{module.__name__}.REFERENCE must be a text that names the stream's source.",
    )
    stream = module.make(**static)
    check_spec(module.__name__, stream.spec)
    case = make_case(module.__name__, stream)
    check_starts(case)
    check_batches(case)
    check_one_pass(case)
    check_held_out(case)


def check_spec(name: str, spec: StreamSpec) -> None:
    """Static facts that contradict neither the contract nor each other."""
    try:
        hash(spec)
    except TypeError as error:
        require(False, f"{name}: the spec must be hashable, tuples no lists: {error}.")
    schedule(spec)
    require(
        spec.scenario in SCENARIOS,
        f"{name}: scenario {spec.scenario!r} is none of {', '.join(SCENARIOS)}.",
    )
    require(
        isinstance(spec.offers, frozenset) and spec.offers <= OFFERS,
        f"{name}: offers {spec.offers!r} must be a frozenset out of {sorted(OFFERS)}.",
    )


def check_starts(case: Case) -> None:
    """The task state follows from the run's key and the task, and from nothing else."""
    task = min(1, case.spec.num_tasks - 1)
    state = case.start(0, task)
    require_equal(
        state, case.start(0, task), f"{case.name}: start(data, key, task) twice"
    )
    first = case.batches(case.start(0, 0), FEW)
    if case.spec.num_tasks > 1:
        unnumbered = case.batches(state, FEW)._replace(task=first.task)
        require(
            differ(first, unnumbered),
            f"{case.name}: tasks 0 and 1 are the same, order of examples included: "
            "start must fold the task into the run's key.",
        )
    require(
        differ(first, case.batches(case.start(1, 0), FEW)),
        f"{case.name}: two runs with other keys see the same task.",
    )
    lanes = jax.vmap(case.stream.start, (None, 0, None))
    keys = jax.random.split(run_key(0), 2)
    many = jax.eval_shape(lanes, case.data, keys, jnp.int32(0))
    one = jax.eval_shape(lambda s: jax.tree.map(lambda leaf: leaf[0], s), many)
    require_same_structure(state, one, f"{case.name}: start under vmap")


def check_batches(case: Case) -> None:
    """Shapes, dtypes, labels in play, the true task, and losses that are finite."""
    last = case.spec.num_tasks - 1
    for task in {0, last}:
        batches = case.batches(case.start(0, task), FEW)
        check_batch(case, batches, f"batch of task {task}", case.spec.batch_size)
        require(
            np.all(np.asarray(batches.task) == task),
            f"{case.name}: Batch.task of task {task} must be {task} in every example; "
            "the runner hides it where it may not be known.",
        )
        check_in_play(case, batches, f"batch of task {task}")
