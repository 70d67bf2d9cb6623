"""What methods that freeze weights share: steps that leave frozen weights as they are."""

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench.types import Batch, Learner, Network, PyTree, Signals, StreamSpec


def hold(
    free: PyTree, before: Learner, after: Learner, signals: Signals
) -> tuple[Learner, Signals]:
    """The step from `before` to `after`, taken by the `free` weights alone.

    `free`: bools that broadcast over the parameters. Frozen weights stay to the last
    bit: a gradient of 0 would not do, as momentum and weight decay move them too.
    """
    params = jax.tree.map(
        lambda f, new, old: jnp.where(f, new, old),
        free, after.net.params, before.net.params,
    )  # fmt: skip
    updates = jax.tree.map(lambda f, u: jnp.where(f, u, 0.0), free, signals.updates)
    net = after.net._replace(params=params)
    return after._replace(net=net), signals._replace(updates=updates)


def hold_statistics(frozen: Array, before: Learner, after: Learner) -> Learner:
    """`after` with the statistics of normalisation of `before` where frozen ()."""
    stats = jax.tree.map(
        lambda old, new: jnp.where(frozen, old, new), before.net.stats, after.net.stats
    )
    return after._replace(net=after.net._replace(stats=stats))


def require_kept(spec: StreamSpec, method: str, instead: str) -> None:
    """Raise ValueError for a benchmark that overwrites weights a method has frozen."""
    if spec.reset_head:
        raise ValueError(
            f"{method} keeps what each task learnt in the head, and this benchmark resets "
            f"the head at every task: set reset_head=False, or take {instead}"
        )
    require_last(spec, method, instead)


def require_last(spec: StreamSpec, method: str, instead: str) -> None:
    """Raise ValueError for a benchmark whose tasks end with an earlier network."""
    if spec.restore_best:
        raise ValueError(
            f"{method} follows the weights to the end of a task, and this benchmark "
            "puts back the best network: set best_validation=False, or take "
            f"{instead}"
        )


def require_hidden(net: Network, method: str) -> None:
    """Raise ValueError for a network without hidden layers."""
    if not net.units:
        raise ValueError(
            f"{method} works on hidden layers, and this network has none: give it "
            "some, widths=(100,) say"
        )


def head_is(spec: StreamSpec, head: str, own: str) -> bool:
    """Whether the option `head` is `own`, the name of a head that is left to each task.

    'auto' is, where each task has outputs of its own and its number is known.
    """
    return head == own or (head == "auto" and spec.multi_head)


def of_outputs_in_play(
    weights: dict[str, Array], net: Network, batch: Batch
) -> dict[str, Array]:
    """`weights`, module -> bools, without those of outputs that are not in play."""
    in_play = jnp.any(batch.classes, axis=0)
    return {**weights, net.head: weights[net.head] & in_play}
