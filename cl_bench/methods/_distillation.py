"""Distillation: which outputs past tasks had, and how far two networks differ on them."""

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench.losses import mask_logits
from cl_bench.types import Batch, Clock, StreamSpec


def old_outputs(spec: StreamSpec, clock: Clock, outputs: Array) -> Array:
    """Sets of old outputs [S, K] bool, from those of each task [T, K].

    Scenario 'task', without a single head: one set for every earlier task, its own
    outputs; 'class': all that earlier tasks had labels of; others: all outputs.
    """
    past = (jnp.arange(spec.num_tasks) < clock.task)[:, None]
    if spec.multi_head:
        return outputs & past
    if spec.scenario == "class":
        return jnp.any(outputs & past, axis=0, keepdims=True)
    return jnp.ones((1, spec.num_outputs), bool)


def met_outputs(spec: StreamSpec, clock: Clock, batch: Batch, outputs: Array) -> Array:
    """The table [T, K] with what this batch adds: outputs in play, 'class': labels."""
    counted = (batch.weight > 0)[:, None]
    if spec.multi_head:
        met = jnp.any(batch.classes & counted, axis=0)
    elif spec.scenario == "class":
        labels = jax.nn.one_hot(batch.y, spec.num_outputs, dtype=bool)
        met = jnp.any(labels & counted, axis=0)
    else:
        return outputs
    return outputs.at[clock.task].set(outputs[clock.task] | met)


def distillation(
    student: Array, teacher: Array, old: Array, shown: Array, temperature: Array | float
) -> Array:
    """-sum_k q_k log p_k [..., B] of logits [B, K]; q over `old`, p over `shown`.

    `old` and `shown` broadcast to [..., B, K] bool; 0 where `old` is empty.
    """
    q = jax.nn.softmax(mask_logits(teacher / temperature, old))
    log_p = jax.nn.log_softmax(mask_logits(student / temperature, shown))
    return -jnp.sum(jnp.where(old, jax.lax.stop_gradient(q) * log_p, 0.0), axis=-1)
