"""A method run over several small tasks, with every learner on the way kept."""

from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from cl_bench.networks import mlp
from cl_bench.types import Batch, Clock, Key, Learner, Method, StreamSpec
from tests import tiny
from tests.reference import mlp as oracle_mlp

TASKS, STEPS = 3, 20
close = partial(chex.assert_trees_all_close, rtol=1e-5, atol=5e-6)


def spec(**changes: Any) -> StreamSpec:
    """Three tasks of 20 batches, each example once."""
    facts: dict[str, Any] = {
        "num_tasks": TASKS,
        "steps_per_task": STEPS,
        "steps_per_segment": STEPS,
        "examples_per_task": STEPS * tiny.BATCH,
        "offers": frozenset({"boundaries", "task_id"}),
    }
    return tiny.SPEC._replace(**facts | changes)


def data(seed: int = 0, per_task: int = 0) -> Any:
    """Batches of all tasks, [TASKS, STEPS, ...].

    Each task has `per_task` outputs of its own and of TASKS `per_task`; 0: all alike.
    """
    flat = tiny.batches(TASKS * STEPS, seed)
    made = jax.tree.map(lambda a: a.reshape(TASKS, STEPS, *a.shape[1:]), flat)
    task = np.broadcast_to(np.arange(TASKS)[:, None, None], made.y.shape)
    made = made._replace(task=np.array(task, np.int32))
    if not per_task:
        return made
    first = per_task * made.task
    owner = np.arange(TASKS * per_task) // per_task
    classes = owner == made.task[..., None]
    return made._replace(
        y=(made.y % per_task + first).astype(np.int32), classes=classes
    )


# Tasks that all have the same outputs, and tasks with outputs of their own.
SPEC, DATA = spec(), data()
NET = mlp.make(SPEC, widths=(8, 6))
OWN = data(per_task=2)  # outputs 0 1, 2 3, 4 5
OWN_SPEC = spec(scenario="task", own_outputs=True, num_outputs=6)
OWN_NET = mlp.make(OWN_SPEC, widths=(8, 6))


class Task(NamedTuple):
    """The learners of one task."""

    start: Learner  # after start_task
    steps: list[Learner]  # after each step
    end: Learner  # after end_task


def run(method: Method, batches: Batch) -> list[Task]:
    """All tasks of batches [tasks, steps, ...], every phase compiled quickly."""
    batches = jax.tree.map(jnp.asarray, batches)
    tasks, count = batches.y.shape[:2]
    step = tiny.quick_jit(method.step)

    def boundary(hook: Any, key: Any, clock: Clock, learner: Learner) -> Learner:
        train = lambda i: jax.tree.map(lambda leaf: leaf[clock.task, i], batches)
        return hook(key, clock, train, learner)

    start = tiny.quick_jit(lambda *args: boundary(method.start_task, *args))
    end = tiny.quick_jit(lambda *args: boundary(method.end_task, *args))
    learner, done = method.init(tiny.KEY), []
    for task in range(tasks):
        at = partial(clock, count, task)
        learner = started = start(start_key(task), at(0), learner)
        steps = []
        for i in range(count):
            batch = tiny.at(tiny.at(batches, task), i)
            key_of_step = tiny.step_key(task * count + i)
            learner, _ = step(key_of_step, at(i), batch, learner)
            steps.append(learner)
        key = jax.random.fold_in(tiny.KEY, 2000 + task)
        learner = end(key, at(count), learner)
        done.append(Task(started, steps, learner))
    return done


def start_key(task: int) -> Key:
    """The key that `run` hands to start_task of this task."""
    return jax.random.fold_in(tiny.KEY, 1000 + task)


def clock(steps: int, task: int, i: int) -> Clock:
    """Of step i of a task, all of them so many steps long."""
    return Clock(jnp.int32(task * steps + i), jnp.int32(task), jnp.int32(i))


# ---- beside an oracle


def first(method):
    return oracle_mlp.cast(method.init(tiny.KEY).net.params)


def sgd(params, grads, step_size):
    return oracle_mlp.map_params(lambda p, g: p - step_size * g, params, grads)


def compare(tasks, expected):
    """Every step's parameters against the oracle's."""
    learners = [learner for task in tasks for learner in task.steps]
    for learner, params in zip(learners, expected, strict=True):
        close(learner.net.params, jax.tree.map(np.float32, params))
