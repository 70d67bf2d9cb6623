"""O-LoRA: the adapter of each task reads directions that earlier adapters do not."""

import jax.numpy as jnp
from flax import struct
from jax import Array

from cl_bench.methods import _adapters, _freeze, _lora, lora
from cl_bench.types import Method, Network, StreamSpec

REFERENCE = (
    "Wang et al., Findings of EMNLP 2023 (arXiv 2310.14152); released code, "
    "cmnfriend/O-LoRA"
)
NEEDS = frozenset({"boundaries"})
# Adapters always restrict the later tasks: no value of a setting gives backprop.
NEUTRAL: dict[str, float] | None = None
OVERLAPS = ("absolute", "square")
FIRST_TASKS = ("core", "adapters")


@struct.dataclass
class Hyper(lora.Hyper):
    """The released code's lambda_1 and lambda_2, and the settings of `lora`."""

    orthogonality: float = 0.5  # lambda_1
    adapter_decay: float = 0.0  # lambda_2
    overlap: str = struct.field(pytree_node=False, default="absolute")
    first_task: str = struct.field(pytree_node=False, default="core")


def check(hyper: Hyper) -> None:
    """Raise ValueError for an option that does not exist."""
    lora.check(hyper)
    if hyper.overlap not in OVERLAPS:
        raise ValueError(f"overlap={hyper.overlap!r} is none of {', '.join(OVERLAPS)}")
    if hyper.first_task not in FIRST_TASKS:
        raise ValueError(
            f"first_task={hyper.first_task!r} is none of {', '.join(FIRST_TASKS)}"
        )


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """`lora` + orthogonality sum |A_s A_t^T| + adapter_decay (||A_t|| + ||B_t||).

    Sums over the entries of A_s A_t^T [rank, rank], over earlier tasks s and over layers
    (`overlap` 'square': their squares, as the paper has it; its code takes absolute
    values); norms are Frobenius', not squared. All adapters act at once, so merging
    them changes nothing. Memory: A of all tasks, [T, rank, fan in] a layer.

    `first_task` 'adapters' trains an adapter over the untrained network in the first
    task too. Raises ValueError as `lora` does, and for a benchmark that puts an earlier
    network back at a task's end, whose A would be another than the one remembered.
    """
    # Departs from the paper: there a pretrained model is the core and every task has an
    # adapter; here the first task trains the core, which has no A to be orthogonal to.
    check(hyper)
    names = _adapters.adapted(net, hyper.layers, hyper.rank)
    _adapters.check_head(net, names, hyper.train_head)
    _freeze.require_last(spec, "o_lora", "lora")
    first = 1 if hyper.first_task == "core" else 0

    def start(key, clock, train, learner, memory):
        del clock, train, memory
        core = _adapters.kernels(learner.net.params, names)
        return _adapters.draw(key, core, hyper.rank, hyper.init_std)

    def memory(state):
        core = _adapters.kernels(state.params, names)
        empty = _adapters.blank(core, hyper.rank)
        return {n: jnp.zeros((spec.num_tasks, *empty[n]["a"].shape)) for n in names}

    def penalty(adapters, past):
        total = jnp.zeros(())
        for name, adapter in adapters.items():
            overlap = jnp.einsum("tri,si->trs", past[name], adapter["a"])
            size = jnp.abs if hyper.overlap == "absolute" else jnp.square
            total += hyper.orthogonality * jnp.sum(size(overlap))
            total += hyper.adapter_decay * (_norm(adapter["a"]) + _norm(adapter["b"]))
        return total

    def remember(clock, train, learner, past):
        del train
        own = learner.extra["lora"]["adapters"]
        trained = clock.task >= first
        return {
            name: past[name].at[clock.task].set(jnp.where(trained, own[name]["a"], 0.0))
            for name in past
        }

    parts = _lora.Parts(start, penalty, memory, remember, first=first)
    return _lora.sequential(net, spec, hyper, names, parts)


def _norm(x: Array) -> Array:
    """||x||_F with gradient 0 at 0 (B starts there), as PyTorch has it."""
    square = jnp.sum(jnp.square(x))
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)
