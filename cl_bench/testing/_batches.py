"""A stream's batches, and what every one of them must look like."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cl_bench.lane import run_key
from cl_bench.testing._compare import host, require
from cl_bench.types import Batch, Dataset, Stream, StreamSpec


class Case(NamedTuple):
    """A stream with its data and compiled functions."""

    name: str
    stream: Stream
    data: Dataset
    compiled_start: Any
    compiled_walk: Any  # (data, task state, [n] indices) -> Batch of leaves [n, B, ...]

    @property
    def spec(self) -> StreamSpec:
        """The stream's."""
        return self.stream.spec

    def start(self, seed: int, task: int) -> Any:
        """The task state in the run of a seed."""
        key = run_key(jnp.int32(seed))
        return self.compiled_start(self.data, key, jnp.int32(task))

    def batches(self, state: Any, count: int) -> Batch:
        """The first batches of a task on the host, leaves [count, B, ...]."""
        indices = jnp.arange(max(1, count), dtype=jnp.int32)
        return host(self.compiled_walk(self.data, state, indices))

    def examples(self, batch: Batch) -> np.ndarray:
        """The inputs [N, ...] of leaves [n, B, ...], padding left out."""
        x = np.asarray(batch.x).reshape(-1, *self.spec.input_shape)
        return x[np.asarray(batch.weight).reshape(-1) > 0]


def make_case(name: str, stream: Stream) -> Case:
    """Data on the device; start and batch compiled."""
    data = jax.tree.map(jnp.asarray, stream.load())
    walk = jax.vmap(stream.batch, (None, None, 0))
    return Case(name, stream, data, jax.jit(stream.start), jax.jit(walk))


def check_batch(case: Case, batch: Batch, what: str, size: int) -> None:
    """Shapes, dtypes and finite losses; `batch` has leaves [n, B, ...]."""
    spec, count = case.spec, batch.x.shape[0]
    lead, outputs = (count, size), spec.num_outputs
    expected: dict[str, Any] = {
        "x": ((*lead, *spec.input_shape), jnp.float32),
        "weight": (lead, jnp.float32),
        "classes": ((*lead, outputs), jnp.bool_),
        "task": (lead, jnp.int32),
        "y": (lead, jnp.int32),
    }
    if jnp.issubdtype(batch.y.dtype, jnp.floating):
        expected["y"] = ((*lead, outputs), jnp.float32)
    for field, (shape, dtype) in expected.items():
        leaf = getattr(batch, field)
        require(
            leaf.shape == shape and leaf.dtype == dtype,
            f"{case.name}: {what}: {field} must be {jnp.dtype(dtype)}{list(shape[1:])}, "
            f"not {leaf.dtype}{list(leaf.shape[1:])}.",
        )
    require(
        np.isfinite(batch.x).all() and np.all(np.asarray(batch.weight) >= 0),
        f"{case.name}: {what}: x must be finite and weight at least 0.",
    )
    zeros = jnp.zeros((*lead, outputs))
    losses = jax.vmap(spec.loss.per_example)(zeros, batch.y)
    scores = jax.vmap(spec.loss.score)(zeros, batch.y)
    require(
        losses.shape == lead and np.isfinite(losses).all(),
        f"{case.name}: {what}: the loss of logits 0 must be one finite number each.",
    )
    require(
        scores.shape == lead and np.all((scores >= 0) & (scores <= 1)),
        f"{case.name}: {what}: the score must be one number in [0, 1] each.",
    )


def check_in_play(case: Case, batch: Batch, what: str) -> None:
    """Every label is an output, and one of those in play."""
    if jnp.issubdtype(batch.y.dtype, jnp.floating):
        return
    y, seen = np.asarray(batch.y), np.asarray(batch.weight) > 0
    outputs = case.spec.num_outputs
    require(
        np.all((y >= 0) & (y < outputs)),
        f"{case.name}: {what}: labels must lie in 0 .. {outputs - 1}.",
    )
    in_play = np.take_along_axis(np.asarray(batch.classes), y[..., None], -1)[..., 0]
    require(
        in_play[seen].all(), f"{case.name}: {what}: a label is not among its classes."
    )
