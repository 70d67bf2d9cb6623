"""The problem that methods and metrics are checked on: few units, few examples."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cl_bench.losses import softmax_cross_entropy
from cl_bench.networks import mlp
from cl_bench.types import Batch, Dataset, NetState, Network, Stream, StreamSpec

INPUTS, CLASSES, EXAMPLES, HELD_OUT = 6, 4, 24, 4
OFFERS = frozenset({"boundaries", "task_id", "validation"})


@cache
def tiny_stream(
    offers: frozenset[str] = frozenset(),
    num_tasks: int = 4,
    steps_per_task: int | tuple[int, ...] = 50,
    steps_per_segment: int = 25,
    batch_size: int = 4,
    reset_head: bool = False,
) -> Stream:
    """24 examples of 6 features; tasks reorder the features and take turns with the
    outputs: even tasks have 0 and 1 in play, odd ones 2 and 3.
    """
    spec = StreamSpec(
        input_shape=(INPUTS,),
        num_outputs=CLASSES,
        num_tasks=num_tasks,
        steps_per_task=steps_per_task,
        steps_per_segment=steps_per_segment,
        batch_size=batch_size,
        examples_per_task=EXAMPLES,
        scenario="task",
        offers=frozenset(offers),
        loss=softmax_cross_entropy,
        reset_head=reset_head,
    )

    def start(data, key, task):
        # Cheap permutations i -> (a i + b) mod n: a sort would take long to compile.
        bits = jax.random.bits(jax.random.fold_in(key, task), (4,), jnp.uint32)
        features = jnp.arange(INPUTS) * jnp.array([1, 5])[bits[0] % 2]
        order = jnp.arange(EXAMPLES) * jnp.array([1, 5, 7, 11])[bits[1] % 4]
        return {
            "features": (features + bits[2] % INPUTS) % INPUTS,
            "order": (order + bits[3] % EXAMPLES) % EXAMPLES,
            "task": jnp.asarray(task, jnp.int32),
        }

    def rows(x, y, state, size):
        first = 2 * (state["task"] % 2)
        in_play = jnp.arange(CLASSES) // 2 == state["task"] % 2
        return Batch(
            x=x[:, state["features"]],
            y=y + first,
            weight=jnp.ones(size),
            classes=jnp.tile(in_play, (size, 1)),
            task=jnp.full(size, state["task"]),
        )

    def batch(data, state, i):
        at = (i * batch_size + jnp.arange(batch_size)) % EXAMPLES
        chosen = state["order"][at]
        return rows(data.train_x[chosen], data.train_y[chosen], state, batch_size)

    def held_out(data, state, split, now, i):
        del now
        at = ("fit", "tune", "test").index(split) * HELD_OUT + jnp.arange(HELD_OUT)
        made = rows(data.test_x[at], data.test_y[at], state, HELD_OUT)
        return made._replace(weight=jnp.where(i == 0, made.weight, 0.0))

    return Stream(spec, _load, start, batch, held_out)


def _load() -> Dataset:
    random = np.random.RandomState(0)
    size = (EXAMPLES + 3 * HELD_OUT, INPUTS)
    x: Any = random.normal(size=size).astype(np.float32)
    y: Any = (x[:, 0] + x[:, 1] > 0).astype(np.int32)
    return Dataset(x[:EXAMPLES], y[:EXAMPLES], x[EXAMPLES:], y[EXAMPLES:])


@cache
def tiny_network(spec: StreamSpec, constrained: bool = False) -> Network:
    """An mlp of 7 and 5 units; `constrained` adds 2 dead units a layer and forbids a
    quarter of the edges between them.
    """
    if not constrained:
        return mlp.make(spec, widths=(7, 5))
    net = mlp.make(spec, widths=(7, 5), spare_units=2)
    return net._replace(init=lambda key: forbid_edges(net.init(key)))


def forbid_edges(net: NetState) -> NetState:
    """The same state with every fourth edge of each kernel but the head's forbidden."""
    edges = {
        name: (jnp.arange(layer["kernel"].size) % 4 > 0).reshape(layer["kernel"].shape)
        for name, layer in net.params.items()
        if name != "head"
    }
    return net._replace(edges=edges)
