"""How the data of one problem arrive: shares, wrong labels, epochs; and the presets.

Not a component; `warm_start` says what each of them means.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from cl_bench.registry import UnknownNameError, nearest


class Plan(NamedTuple):
    """How the data arrive."""

    chunks: tuple[float, ...]  # share of the training set, one a task
    cumulative: bool  # earlier chunks stay
    label_noise: tuple[float, ...]  # share of wrong labels, one a chunk
    epochs: tuple[int, ...]  # one number a task, or one for all
    batch_size: int


PRESETS = {
    "ash_adams": Plan((0.5, 0.5), True, (), (350,), 128),
    # Epochs are int(100 / share) and int(10 / share): tasks of about equally many steps.
    "hare_tortoise": Plan((0.1, 0.9), False, (0.5, 0.0), (1000, 111), 256),
    "noisy_chunks": Plan(
        (0.1,) * 10, False,
        (0.5, 0.4, 0.4, 0.3, 0.3, 0.2, 0.2, 0.1, 0.1, 0.0), (100,), 256,
    ),
    "dash": Plan((0.02,) * 50, True, (), (260,), 128),
}  # fmt: skip


def wrong_places(
    starts: np.ndarray, ends: np.ndarray, ratios: tuple[float, ...], total: int
) -> np.ndarray:
    """[N] bool: which places of the random order have wrong labels, exactly so many."""
    wrong = np.zeros(total, bool)
    for start, end, ratio in zip(starts, ends, ratios, strict=True):
        # 1e-9: half of ten is five, whatever the rounding of 10 * 0.5
        wrong[start : start + int((end - start) * ratio + 1e-9)] = True
    return wrong


def make_plan(
    preset: str | None,
    chunks: Any,
    cumulative: bool | None,
    label_noise: Any,
    epochs: Any,
    batch_size: int | None,
    num_tasks: int | None,
) -> Plan:
    """The preset with what the user gave instead, one number a task in each list."""
    if preset is not None and preset not in PRESETS:
        raise UnknownNameError(
            f"Unknown preset {preset!r}.{nearest(preset, [*PRESETS])}"
        )
    missing = [
        name
        for name, value in (
            ("chunks", chunks), ("epochs", epochs), ("batch_size", batch_size)
        )
        if value is None
    ]  # fmt: skip
    if preset is None and missing:
        raise ValueError(
            f"preset=None leaves {', '.join(missing)} open: give them, or a preset out "
            f"of {', '.join(PRESETS)}."
        )
    base = PRESETS[preset] if preset else Plan((), False, (), (), 0)
    chosen = Plan(
        base.chunks if chunks is None else tuple(map(float, chunks)),
        base.cumulative if cumulative is None else cumulative,
        base.label_noise if label_noise is None else _tuple(label_noise),
        base.epochs if epochs is None else _tuple(epochs),
        base.batch_size if batch_size is None else batch_size,
    )
    return _first(_checked(chosen), num_tasks)


def _tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, Sequence) else (value,)


def _checked(plan: Plan) -> Plan:
    """One number a task in each list. Raises ValueError where the plan cannot be."""
    count = len(plan.chunks)
    positive = all(share > 0 for share in plan.chunks)  # False of a NaN
    if not count or not positive or sum(plan.chunks) > 1 + 1e-6:
        raise ValueError(
            f"chunks={plan.chunks}: positive shares of the training set, 1 together at "
            f"most (these are {sum(plan.chunks):g})."
        )
    noise = plan.label_noise or (0.0,)
    plan = plan._replace(label_noise=noise)
    for name in ("label_noise", "epochs"):
        given = getattr(plan, name)
        if len(given) not in (1, count):
            raise ValueError(
                f"{name} has {len(given)} numbers for {count} chunks: one, or one each."
            )
        plan = plan._replace(**{name: given * (count // len(given))})
    if not all(0 <= ratio <= 1 for ratio in plan.label_noise):
        raise ValueError(f"label_noise={plan.label_noise}: shares from 0 to 1.")
    if min(plan.epochs) < 1:
        raise ValueError(f"epochs={plan.epochs}: at least 1.")
    return plan


def _first(plan: Plan, num_tasks: int | None) -> Plan:
    """The first tasks only."""
    most = len(plan.chunks)
    count = most if num_tasks is None else num_tasks
    if not 1 <= count <= most:
        raise ValueError(
            f"num_tasks={num_tasks}: there are {most} chunks, so 1 to {most}."
        )
    return plan._replace(
        chunks=plan.chunks[:count],
        label_noise=plan.label_noise[:count],
        epochs=plan.epochs[:count],
    )
