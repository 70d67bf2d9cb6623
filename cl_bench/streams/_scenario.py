"""Scenarios of continual learning: a task's outputs, and which of them are in play.

Not a component. The definitions, and the code that embodies them:

- A *task* is one stage of a stream: inputs p(x), targets p(y | x), a map from labels to
  outputs, a loss, what is known of its number, and a budget of examples. Two tasks are
  the same where all of these are. Streams here number the labels of every task from 0
  to C - 1.
- *Task-incremental* ('task'): the task's number is known, also when it is tested
  (`offers` has 'task_id'). Each task has C outputs of its own, the only ones in play
  for its examples; with `single_head` all tasks share C outputs.
- *Domain-incremental* ('domain'): all tasks share C outputs; the number is not known.
- *Class-incremental* ('class'): each task has C outputs of its own, the number is not
  known, and those of several tasks compete: which ones, says `active`.
- *Online, without boundaries* (Reymond: incremental learning): any of them with
  `offers=()`: no method is told when a task ends. What a batch shows, such as the
  outputs in play, it still shows.
- *Sequential, cumulative, joint* (`training`): a task trains on its own examples, on
  those of all tasks so far, or on those of all tasks from the start (multi-task
  learning; its tasks are T equal parts of one training).

Sources: van de Ven and Tolias 2019 (arXiv 1904.07734) for the three scenarios; Reymond
2024 (unpublished), section 1.1.3, for incremental, sequential and multitask.
"""

from collections.abc import Collection
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from cl_bench.registry import UnknownNameError, nearest

SCENARIOS = ("task", "domain", "class")
ACTIVE = ("all", "seen", "current")
TRAINING = ("sequential", "cumulative", "joint")


class Scenario(NamedTuple):
    """The outputs of a stream's tasks (hashable)."""

    name: str
    num_tasks: int
    classes: int  # C, labels of one task
    active: str = "all"
    single_head: bool = False
    training: str = "sequential"

    @property
    def shared(self) -> bool:
        """Whether all tasks have the same outputs."""
        return self.name == "domain" or self.single_head

    @property
    def num_outputs(self) -> int:
        """C, or C for each task."""
        return self.classes if self.shared else self.classes * self.num_tasks


def make(
    name: str,
    num_tasks: int,
    classes: int,
    *,
    active: str = "all",
    single_head: bool = False,
    training: str = "sequential",
) -> Scenario:
    """A scenario of `num_tasks` tasks of `classes` labels each.

    `active`, of class-incremental streams: 'all' outputs are in play from the start
    (van de Ven and Tolias), those 'seen' so far (Hsu et al., `--incremental_class`), or
    only the 'current' task's while training, and those seen while testing.

    Raises UnknownNameError for a name that does not exist and ValueError for options
    that contradict each other.
    """
    for kind, value, names in (
        ("scenario", name, SCENARIOS),
        ("active", active, ACTIVE),
        ("training", training, TRAINING),
    ):
        if value not in names:
            raise UnknownNameError(f"Unknown {kind} {value!r}.{nearest(value, names)}")
    if active != "all" and name != "class":
        raise ValueError(
            f"active={active!r} is for scenario='class'; in scenario={name!r} the "
            "outputs in play are those of the example's own task: leave active='all'."
        )
    if single_head and name != "task":
        raise ValueError(
            f"single_head=True is for scenario='task', not {name!r}: 'domain' has one "
            "head of shared outputs already, 'class' one of all outputs."
        )
    return Scenario(name, num_tasks, classes, active, single_head, training)


def offers(scenario: Scenario, given: tuple[str, ...] | str | None) -> tuple[str, ...]:
    """What a method may know: `given`, or the scenario's own where that is None.

    Raises ValueError for 'task_id' outside of the task-incremental scenario.
    """
    if given is None:
        return ("boundaries", "task_id")[: 2 if scenario.name == "task" else 1]
    given = (given,) if isinstance(given, str) else tuple(given)
    if "task_id" in given and scenario.name != "task":
        raise ValueError(
            f"offers={given}: scenario={scenario.name!r} does not tell the task's "
            "number; scenario='task' does."
        )
    return given


def told(name: str, offered: Collection[str]) -> str:
    """A scenario's name as `StreamSpec` has it: 'online' without boundaries."""
    return name if "boundaries" in offered else "online"


def facts(scenario: Scenario, offered: tuple[str, ...]) -> dict[str, Any]:
    """The fields of a `StreamSpec` that a scenario decides."""
    return {
        "num_outputs": scenario.num_outputs,
        "scenario": told(scenario.name, offered),
        "own_outputs": not scenario.shared,
    }


def labels(scenario: Scenario, y: Array, task: Array) -> Array:
    """[B] outputs of labels y [B] in 0 .. C - 1 of examples of tasks `task` [B]."""
    return y if scenario.shared else y + task * scenario.classes


def in_play(
    scenario: Scenario, task: Array, now: Array, *, test: bool = False
) -> Array:
    """[B, K] bool: outputs in play for examples of tasks `task` [B] at task `now` []."""
    outputs = jnp.arange(scenario.num_outputs)
    everything = jnp.ones((len(task), scenario.num_outputs), bool)
    if scenario.shared or (scenario.name == "class" and scenario.active == "all"):
        return everything
    block = outputs // scenario.classes
    if scenario.name == "task":
        return block == task[:, None]
    if scenario.training == "joint":
        return everything
    if scenario.active == "current" and not test:
        first = now if scenario.training == "sequential" else 0
        return jnp.broadcast_to((block >= first) & (block <= now), everything.shape)
    return jnp.broadcast_to(block <= now, everything.shape)
