"""Memories of example numbers, filled one example at a time.

A memory is a list of M numbers of examples, -1 for an empty place. Random numbers come
in as arguments, so that two implementations can be given the same ones.
"""

from typing import Any

import numpy as np


def reservoir(places: list[int], example: int, n: int, r: int) -> None:
    """Vitter's Algorithm R for example number n (from 0), r drawn from 0 .. n."""
    if n < len(places):
        places[n] = example
    elif r < len(places):
        places[r] = example


def class_balanced(
    places: list[int],
    example: int,
    labels: np.ndarray,
    state: dict[str, Any],
    u: float,
    v: float,
) -> None:
    """Chrysakis and Moens 2020, Algorithm 1, for one example; u, v drawn from [0, 1).

    `state` holds the number of examples offered of each class, and the set of full
    classes: those that are or were the largest since the memory was filled. u decides
    whether an example of a full class is stored, v whose place is taken.
    """
    label = int(labels[example])
    state["seen"][label] = state["seen"].get(label, 0) + 1
    if -1 in places:
        places[places.index(-1)] = example
        return
    owner = [int(labels[e]) for e in places]
    stored = {c: owner.count(c) for c in set(owner)}
    most = max(stored.values())
    largest = {c for c, number in stored.items() if number == most}
    state["full"] |= largest
    if label not in state["full"]:
        victims = [i for i, c in enumerate(owner) if c in largest]
    elif u < stored.get(label, 0) / state["seen"][label]:
        victims = [i for i, c in enumerate(owner) if c == label]
    else:
        return
    places[victims[int(v * len(victims))]] = example


def ring(places: list[int], example: int, task: int, n: int, per_task: int) -> None:
    """Example number n (from 0) of its task takes the oldest place of its task."""
    places[task * per_task + n % per_task] = example


def equal_share(
    kept: dict[int, list[int]], examples: list[int], draws: np.ndarray, capacity: int
) -> dict[int, list[int]]:
    """M // t examples of each of t tasks: the first of a random order of each task.

    `kept` maps earlier tasks (0, 1, ...) to their examples in their random order, and
    `draws` are numbers by which the examples of the task that ends are ordered.
    """
    share = capacity // (len(kept) + 1)
    order = [examples[i] for i in np.argsort(draws, kind="stable")]
    return {task: e[:share] for task, e in (kept | {len(kept): order}).items()}
