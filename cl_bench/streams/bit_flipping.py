"""Slowly-changing regression: a fixed target network, and inputs whose bits flip."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cl_bench.losses import squared_error
from cl_bench.registry import UnknownNameError, nearest
from cl_bench.streams import _length
from cl_bench.types import Batch, Dataset, Key, Stream, StreamSpec

REFERENCE = (
    "Dohare et al. (2023), arXiv:2306.13812, Slowly-ChangingRegression; Nature 632 "
    "(2024), Bit-Flipping problem; released code, shibhansh/loss-of-plasticity"
)
FLIPS = ("one", "all")
MOST_RANDOM_BITS = 12  # a task state holds the target of each of their 2**n values


class Target(NamedTuple):
    """A network of H linear threshold units; every number but `threshold` is +-1."""

    weights: Array  # [H, m]
    biases: Array  # [H]
    threshold: Array  # [H]
    out_weights: Array  # [H]
    out_bias: Array  # ()


class Task(NamedTuple):
    """State of one task. A code is the value of the random bits as an integer."""

    fixed: Array  # [f] float32, the flipping bits
    targets: Array  # [2**n, 1] float32, y of each code
    codes: Array  # [steps * B] uint16, the examples in order
    task: Array  # () int32


def make(
    *,
    flips: str = "one",
    num_tasks: int | None = 300,
    total_steps: int | None = None,
    steps_per_task: int = 10_000,
    bits: int = 20,
    flipping: int = 15,
    target_units: int = 100,
    beta: float = 0.7,
    batch_size: int = 1,
    steps_per_segment: int | None = None,
) -> Stream:
    """Slowly-Changing Regression of Dohare et al. (2023); needs no data.

    Inputs x [B, bits] of 0 and 1: the first `flipping` bits stay the same for a task,
    the others are fair coins in every example. With the next task one uniformly chosen
    flipping bit flips (flips='one', the paper's text), or all are drawn anew
    (flips='all', the released code's default). Targets y [B, 1] come from a network
    that is drawn once a run: see `draw_target`. The loss is the squared error. The
    period of flips is `steps_per_task` and the stream `num_tasks` of them, within
    `total_steps` where those are given, or None: as many as they hold. `num_tasks=1`
    without them is a control without a flip.

    `held_out` gives the 'test' split: each of the 2**(bits - flipping) inputs of the
    task once, so that its mean loss is the expected loss of the task, exactly.

    Raises UnknownNameError for another `flips`, ValueError for numbers that do not fit.
    """
    random_bits = bits - flipping
    _check(flips, bits, flipping, target_units, beta)
    length = _length.tasks(num_tasks, total_steps, steps_per_task)
    spec = _make_spec(bits, length, steps_per_task, batch_size, steps_per_segment)

    def load() -> Dataset:
        x: Any = np.zeros((0, bits), np.float32)
        y: Any = np.zeros(0, np.int32)
        return Dataset(x, y, x, y)  # everything is generated

    def start(data: Dataset, key: Key, task: Array) -> Task:
        del data
        target_key, bit_key, coin_key = (jax.random.fold_in(key, i) for i in range(3))
        if flips == "one":
            fixed = _flipped(bit_key, task, length, flipping)
        else:
            fixed = _coins(jax.random.fold_in(bit_key, task), flipping)
        target = draw_target(target_key, bits, target_units, beta)
        inputs = _inputs(fixed, jnp.arange(2**random_bits, dtype=jnp.uint16))
        count = steps_per_task * batch_size
        drawn = jax.random.bits(jax.random.fold_in(coin_key, task), (count,), "uint16")
        codes = drawn & jnp.uint16(2**random_bits - 1)
        return Task(fixed, respond(target, inputs), codes, jnp.asarray(task, jnp.int32))

    def _inputs(fixed: Array, codes: Array) -> Array:
        places = jnp.arange(random_bits, dtype=jnp.uint16)
        coins = (codes[:, None] >> places) & jnp.uint16(1)
        rows = jnp.broadcast_to(fixed, (len(codes), flipping))
        return jnp.concatenate([rows, coins.astype(jnp.float32)], axis=1)

    def _make_batch(state: Task, codes: Array, weight: Array) -> Batch:
        size = len(codes)
        return Batch(
            x=_inputs(state.fixed, codes),
            y=state.targets.at[codes].get(mode="promise_in_bounds"),
            weight=weight,
            classes=jnp.ones((size, 1), bool),
            task=jnp.full(size, state.task),
        )

    def batch(data: Dataset, state: Task, i: Array) -> Batch:
        del data
        first = jax.lax.rem(jnp.asarray(i, jnp.int32), jnp.int32(steps_per_task))
        codes = jax.lax.dynamic_slice(state.codes, (first * batch_size,), (batch_size,))
        return _make_batch(state, codes, jnp.ones(batch_size))

    def held_out(data: Dataset, state: Task, split: str, now: Array, i: Array) -> Batch:
        del data, now
        if split != "test":
            raise ValueError(
                f"The bit_flipping stream holds no {split!r} examples: use 'test', "
                "every input of the task once."
            )
        codes = jnp.arange(2**random_bits, dtype=jnp.uint16)
        weight = jnp.full(len(codes), jnp.where(i == 0, 1.0, 0.0))
        return _make_batch(state, codes, weight)

    return Stream(spec, load, start, batch, held_out)


def draw_target(key: Key, bits: int, units: int, beta: float) -> Target:
    """The data-generating network; weights and biases are +-1 with probability 1/2.

    Unit i fires where w_i x + b_i > (bits + 1) beta - S_i, S_i the number of negative
    input weights, so that a fraction beta of its inputs has to agree with its weights.

    # Departs from the paper: S_i = (bits - sum_j w_ij + b_i) / 2 as in the released
    # code, where the sign of the bias makes it the count of negative weights + b_i / 2.
    """
    signs = jax.random.rademacher(key, (units + 1, bits + 2), jnp.float32)
    weights, biases = signs[:units, :bits], signs[:units, bits]
    negative = (bits - jnp.sum(weights, axis=1) + biases) / 2
    threshold = (bits + 1) * beta - negative
    return Target(weights, biases, threshold, signs[:units, bits + 1], signs[units, 0])


def respond(target: Target, x: Array) -> Array:
    """y [N, 1] of inputs x [N, m]: the output layer is linear, so y is an integer."""
    fires = x @ target.weights.T + target.biases > target.threshold
    return (fires.astype(jnp.float32) @ target.out_weights + target.out_bias)[:, None]


def _coins(key: Key, count: int) -> Array:
    return jax.random.bernoulli(key, 0.5, (count,)).astype(jnp.float32)


def _flipped(key: Key, task: Array, num_tasks: int, flipping: int) -> Array:
    """[f] start vector after `task` flips of one bit each: the parity of the counts."""

    def choose(t: Array) -> Array:
        return jax.random.randint(jax.random.fold_in(key, t), (), 0, flipping)

    tasks = jnp.arange(1, num_tasks)
    counts = jnp.zeros(flipping).at[jax.vmap(choose)(tasks)].add(tasks <= task)
    return (_coins(jax.random.fold_in(key, 0), flipping) + counts) % 2


def _check(
    flips: str, bits: int, flipping: int, target_units: int, beta: float
) -> None:
    if flips not in FLIPS:
        raise UnknownNameError(f"Unknown flips {flips!r}.{nearest(flips, FLIPS)}")
    if not 1 <= flipping <= bits <= flipping + MOST_RANDOM_BITS:
        raise ValueError(
            f"flipping={flipping} of bits={bits}: at least 1 bit flips, and at most "
            f"{MOST_RANDOM_BITS} are random; the nearest that works is flipping="
            f"{min(max(flipping, bits - MOST_RANDOM_BITS, 1), max(bits, 1))}."
        )
    if target_units < 1:
        raise ValueError(f"target_units={target_units}: at least 1.")
    if not 0 <= beta <= 1:
        raise ValueError(f"beta={beta}: a share of the inputs, from 0 to 1.")


def _make_spec(
    bits: int, num_tasks: int, steps: int, batch_size: int, segment: int | None
) -> StreamSpec:
    segment = steps if segment is None else segment
    for name, value in {
        "num_tasks": num_tasks, "steps_per_task": steps, "batch_size": batch_size,
    }.items():  # fmt: skip
        if value < 1:
            raise ValueError(f"{name}={value}: at least 1.")
    if segment < 1 or steps % segment:
        raise ValueError(
            f"steps_per_segment={segment} does not divide steps_per_task={steps}; "
            "None is one segment a task."
        )
    return StreamSpec(
        input_shape=(bits,),
        num_outputs=1,
        num_tasks=num_tasks,
        steps_per_task=steps,
        steps_per_segment=segment,
        batch_size=batch_size,
        examples_per_task=steps * batch_size,
        scenario="online",
        offers=frozenset(),
        loss=squared_error,
        reset_head=False,
    )
