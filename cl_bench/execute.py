"""Lanes of one group as one compiled program: no other module compiles or shards runs.

A lane is one seed with one setting of the traced hyper-parameters. Lanes are sharded
over local devices; within a device they run vmapped or one after another.
"""

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cl_bench.runner import Carry, Run
from cl_bench.types import Dataset, PyTree

STRATEGIES = ("vmap", "map")
ROOM = 256  # most segments a chunk can hold


class Lanes(NamedTuple):
    """The lanes of a group, in order: seeds [L], hyper-parameters stacked to [L]."""

    seeds: Any  # [L] uint32: numpy, or sharded over the devices
    hyper: PyTree

    @property
    def number(self) -> int:
        """Number of lanes."""
        return len(self.seeds)


class Program(NamedTuple):
    """A compiled group."""

    start: Any  # (data, lanes) -> carry
    chunk: Any  # (data, lanes, carry, first, count) -> carry, rows
    data: Dataset  # on every device
    lanes: Lanes  # padded and sharded
    width: int  # lanes that count; padding repeats the last one
    strategy: str
    devices: int
    compile_seconds: float
    memory_bytes: int | None  # of the chunk program on one device, where XLA says


class Chunk(NamedTuple):
    """What the host sees between two chunks."""

    first: int
    count: int  # segments
    rows: dict[str, np.ndarray]  # name -> [L, count]
    carry: Carry | None  # on the devices, lanes padded
    seconds: float


def spread(strategy: str, lane_fn: Any, axes: Any) -> Any:
    """A function of one lane as a function of stacked lanes.

    `axes` has 0 for each stacked argument and None for each shared one.
    """
    if strategy == "vmap":
        return jax.vmap(lane_fn, in_axes=axes)

    def mapped(*args):
        stacked = tuple(a for a, axis in zip(args, axes, strict=True) if axis == 0)

        def one(lane):
            rest = iter(lane)
            merged = (
                next(rest) if axis == 0 else arg
                for arg, axis in zip(args, axes, strict=True)
            )
            return lane_fn(*merged)

        return jax.lax.map(one, stacked)

    return mapped


def functions(run: Run, strategy: str, mesh: Mesh, room: int = ROOM) -> tuple[Any, Any]:
    """The uncompiled (start, chunk) of stacked lanes, sharded over the mesh."""

    def chunk(data, seed, hyper, carry, first, count):
        return run.chunk(data, seed, hyper, carry, first, count, room)

    every, lane = PartitionSpec(), PartitionSpec("lanes")
    start = jax.shard_map(
        spread(strategy, run.init, (None, 0, 0)),
        mesh=mesh, in_specs=(every, lane, lane), out_specs=lane, check_vma=False,
    )  # fmt: skip
    step = jax.shard_map(
        spread(strategy, chunk, (None, 0, 0, 0, None, None)),
        mesh=mesh, in_specs=(every, lane, lane, lane, every, every), out_specs=lane,
        check_vma=False,
    )  # fmt: skip
    return jax.jit(start), jax.jit(step, donate_argnums=3)


def compile_group(
    run: Run,
    data: Dataset,
    lanes: Lanes,
    strategy: str,
    devices: int = 0,
    width: int = 0,
) -> Program:
    """Place data and lanes on the devices and compile the group ahead of time.

    `devices` 0 takes as many local devices as there are lanes for, at most all.
    Lanes are padded to `width` (0: as many as there are), so that every batch of a
    large group runs the same program. Raises ValueError for an unknown strategy.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"lanes={strategy!r} is none of auto, {', '.join(STRATEGIES)}")
    local = jax.local_devices()
    width = max(width, lanes.number)
    use = min(devices or len(local), len(local), width)
    mesh = Mesh(np.array(local[:use]), ("lanes",))
    padded = _pad(lanes, -(-width // use) * use - lanes.number)
    sharded = NamedSharding(mesh, PartitionSpec("lanes"))
    data = jax.device_put(data, NamedSharding(mesh, PartitionSpec()))
    padded = jax.device_put(jax.tree.map(jnp.asarray, padded), sharded)
    began = time.perf_counter()
    start, chunk = functions(run, strategy, mesh)
    started = start.lower(data, *padded).compile()
    carry = jax.eval_shape(start, data, *padded)
    carry = jax.tree.map(
        lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharded), carry
    )
    number = jax.ShapeDtypeStruct((), jnp.int32)
    compiled = chunk.lower(data, *padded, carry, number, number).compile()
    took = time.perf_counter() - began
    return Program(
        started, compiled, data, padded, lanes.number,
        strategy, use, took, _memory(compiled),
    )  # fmt: skip


def with_lanes(program: Program, lanes: Lanes) -> Program:
    """A compiled program with other lanes, at most as many; nothing is compiled."""
    room = program.lanes.seeds.shape[0]
    sharded = program.lanes.seeds.sharding
    padded = jax.tree.map(jnp.asarray, _pad(lanes, room - lanes.number))
    return program._replace(
        lanes=jax.device_put(padded, sharded), width=lanes.number, compile_seconds=0.0
    )


def _memory(compiled: Any) -> int | None:
    sizes = compiled.memory_analysis()
    if sizes is None:
        return None
    return int(
        sizes.argument_size_in_bytes + sizes.temp_size_in_bytes
        + sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    )  # fmt: skip


def _pad(lanes: Lanes, count: int) -> Lanes:
    def pad(leaf):
        leaf = np.asarray(leaf)
        return np.concatenate([leaf, np.repeat(leaf[-1:], count, axis=0)])

    return Lanes(pad(lanes.seeds), jax.tree.map(pad, lanes.hyper))


def carry_shape(program: Program) -> Carry:
    """Shapes, dtypes and shardings of the group's carry, to restore a checkpoint into."""
    shapes = program.start.out_info
    sharding = program.lanes.seeds.sharding
    return jax.tree.map(
        lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding), shapes
    )


def run_group(
    run: Run,
    program: Program,
    *,
    chunk_seconds: float,
    start: tuple[int, Carry] | None = None,
) -> Iterator[Chunk]:
    """Run a compiled group to its end, one chunk at a time.

    `start` resumes from (next segment, carry). A chunk's length follows the clock
    (about `chunk_seconds`); results do not depend on it. The carry of a yielded chunk
    is donated to the next one: read it before asking for more.
    """
    total = run.schedule.num_segments
    first, carry = start or (0, program.start(program.data, *program.lanes))
    count = 1
    while first < total:
        count = min(count, total - first, ROOM)
        began = time.perf_counter()
        carry, rows = program.chunk(
            program.data, *program.lanes, carry, np.int32(first), np.int32(count)
        )
        host = {k: np.asarray(v)[: program.width, :count] for k, v in rows.items()}
        seconds = time.perf_counter() - began
        yield Chunk(first, count, host, carry, seconds)
        first += count
        count = max(1, int(chunk_seconds * count / max(seconds, 1e-6)))


def fastest(runs: dict[str, Run], data: Dataset, lanes: Lanes, devices: int) -> str:
    """The strategy that runs a short rehearsal of the group soonest.

    `runs` has one rehearsal per strategy, of at least two segments, whose second is
    timed: neither compilation nor the start of a task counts.
    """
    seconds = {}
    for strategy, run in runs.items():
        program = compile_group(run, data, lanes, strategy, devices)
        for _ in range(2):  # the first one warms up
            carry = program.start(data, *program.lanes)
            carry, _ = program.chunk(
                data, *program.lanes, carry, np.int32(0), np.int32(1)
            )
            carry = jax.block_until_ready(carry)
            began = time.perf_counter()
            jax.block_until_ready(
                program.chunk(data, *program.lanes, carry, np.int32(1), np.int32(1))
            )
            seconds[strategy] = time.perf_counter() - began
    return min(seconds, key=seconds.__getitem__)
