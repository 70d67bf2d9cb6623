"""How to convolve: one training step of two papers' CNNs, three ways to run lanes.

    python experiments/conv_speed.py                # 4 minutes on one core
    python experiments/conv_speed.py --lanes=64 --strategies=vmap    # for a GPU

Batches of 100 images of 32 x 32 x 3, SGD; `patches` and `direct` are `networks._conv`'s.
`once` is one lane in a program of one step; `map` a scan over steps inside a loop over
lanes, as the runner has it on a CPU; `vmap` the same scan with all lanes in each step,
where `direct` is a grouped convolution. Milliseconds a lane and step (on a CPU of
processor time, so that neighbours matter less), and GFLOP/s of the three products a
layer needs (two in the first, whose input needs no gradient). Compare within one run.

Measured on one core of an AMD EPYC (Zen 4) that others used too, jax 0.10.2, 2 lanes of
3 steps, float32, ms a lane and step (GFLOP/s):

                     once         map           vmap
    kumar   patches  50.8 (16)    31.7 (25)     39.2 (20)
            direct   28.6 (28)   254.1 (3.1)   335.7 (2.4)
    dohare  patches  82.4 (38)    60.5 (51)     82.1 (38)
            direct   77.7 (40)  1675.1 (1.9)  2015.6 (1.5)

So it is the loop that makes XLA's convolution slow on a CPU, far more than vmap: its
two gradients, not its forward pass. Not measured on a GPU.
"""

import math
import os
import time
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags

from cl_bench.losses import softmax_cross_entropy
from cl_bench.networks import cnn
from cl_bench.types import NetState, Network, StreamSpec

_LANES = flags.DEFINE_integer("lanes", 2, "Lanes in one program of map and vmap.")
_STEPS = flags.DEFINE_integer("steps", 3, "Steps of a scan.")
_REPEATS = flags.DEFINE_integer("repeats", 3, "Calls, of which the best counts.")
_CONVS = flags.DEFINE_list("convs", ["patches", "direct"], "patches, direct or both.")
_STRATEGIES = flags.DEFINE_list("strategies", ["once", "map", "vmap"], "Of these.")
_NETWORKS = flags.DEFINE_list("networks", ["kumar", "dohare"], "Names of NETWORKS.")

NETWORKS: dict[str, dict[str, Any]] = {
    "kumar": {"channels": (16, 16), "kernels": (5, 5), "dense": (100, 100)},
    "dohare": {},
}
BATCH = 100
SPEC = StreamSpec(
    input_shape=(32, 32, 3),
    num_outputs=2,
    num_tasks=1,
    steps_per_task=120,
    steps_per_segment=120,
    batch_size=BATCH,
    examples_per_task=1200,
    scenario="domain",
    offers=frozenset(),
    loss=softmax_cross_entropy,
    reset_head=False,
)


def flops(options: dict[str, Any]) -> float:
    """Multiplications and additions of the matrix products of one step."""
    net = cnn.make(SPEC, **options)
    params = jax.eval_shape(net.init, jax.random.key(0)).params
    total, side = 0, SPEC.input_shape[0]
    for name, layer in params.items():
        kernel = layer["kernel"]
        positions = 1
        if kernel.ndim == 4:
            positions = (side - kernel.shape[0] + 1) ** 2
            side = (side - kernel.shape[0] + 1) // 2
        products = 2 if name == "c1" else 3
        total += 2 * BATCH * positions * math.prod(kernel.shape) * products
    return float(total)


def train(net: Network, steps: int, state: NetState, x: jax.Array) -> NetState:
    """`steps` steps of SGD on one batch."""
    y = jnp.arange(BATCH) % SPEC.num_outputs

    def loss(params):
        at = state._replace(params=params)
        logits = net.apply(at, x, train=True, key=None)[0]
        return SPEC.loss.per_example(logits, y).mean()

    def step(params, _):
        grads = jax.grad(loss)(params)
        return jax.tree.map(lambda p, g: p - 0.01 * g, params, grads), None

    if steps == 1:
        return state._replace(params=step(state.params, None)[0])
    return state._replace(params=jax.lax.scan(step, state.params, length=steps)[0])


def seconds_per_step(net: Network, strategy: str) -> float:
    """Seconds a lane and step, best of some calls."""
    lanes, steps = (1, 1) if strategy == "once" else (_LANES.value, _STEPS.value)
    keys = jax.random.split(jax.random.key(0), lanes)
    x = jax.random.normal(jax.random.key(1), (BATCH, *SPEC.input_shape))
    one = lambda state: train(net, steps, state, x)
    state = jax.vmap(net.init)(keys)
    if strategy == "once":
        run, state = jax.jit(one), jax.tree.map(lambda leaf: leaf[0], state)
    elif strategy == "map":
        run = jax.jit(lambda s: jax.lax.map(one, s))
    else:
        run = jax.jit(jax.vmap(one))
    jax.block_until_ready(run(state))
    now = time.process_time if jax.default_backend() == "cpu" else time.perf_counter
    spent = []
    for _ in range(_REPEATS.value):
        began = now()
        jax.block_until_ready(run(state))
        spent.append(now() - began)
    return min(spent) / (lanes * steps)


def table(argv: list[str]) -> None:
    """Print the rows."""
    del argv
    jax.config.update("jax_default_matmul_precision", "highest")
    os.environ.setdefault("NPROC", "1")  # as cl_bench.main: one thread a device
    print(f"{jax.local_devices()[0].device_kind}, jax {jax.__version__}, "
          f"{_LANES.value} lanes, {os.cpu_count()} cores")  # fmt: skip
    for name in _NETWORKS.value:
        work = flops(NETWORKS[name])
        print(f"{name}: {work / 1e9:.2f} GFLOP a step")
        for kind in _CONVS.value:
            net = cnn.make(SPEC, **NETWORKS[name], conv=kind)
            for strategy in _STRATEGIES.value:
                spent = seconds_per_step(net, strategy)
                print(f"  {kind:8} {strategy:5}{1e3 * spent:9.1f} ms"
                      f"{work / spent / 1e9:8.1f} GFLOP/s", flush=True)  # fmt: skip


if __name__ == "__main__":
    app.run(table)
