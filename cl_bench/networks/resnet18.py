"""ResNet-18 for small images: four stages of two basic blocks."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from cl_bench.networks import _conv, _input_norm, _normalise
from cl_bench.types import Key, NetState, Network, StreamSpec, Unit

STAGES, BLOCKS = 4, 2


class Module(NamedTuple):
    """One convolution, or the head: kernel shape, stride and deviation of its draw."""

    shape: tuple[int, ...]
    stride: int
    deviation: float


def make(
    spec: StreamSpec,
    *,
    width: int = 64,
    norm: str = "batch",
    conv: str = "patches",
    input_norm: str = "none",
    input_decay: float = 0.99,
) -> Network:
    """ResNet-18 (He et al., CVPR 2016) with a 3 x 3 stem and no max-pool.

    Stages 's1' to 's4' have width, 2 width, 4 width and 8 width channels and strides
    1, 2, 2, 2; convolutions have biases; after the last stage comes the mean over
    positions and a linear 'head'. Kernels are normal with deviation sqrt(2 / fan_in),
    the head's with sqrt(1 / fan_in), biases 0. Source: Dohare et al., Nature 2024,
    released code (incremental CIFAR-100).

    Units are of two kinds. 's1b1' is what lies inside a block, between its two
    convolutions 's1b1c1' and 's1b1c2'. 's1' is the residual stream of a stage: it is
    written by the stem (later stages: the shortcut 's2skip') and by the second
    convolution of each block, read by the first convolution of each block, the next
    stage's first convolution and shortcut, or the head. So resetting a channel of a
    stream redraws all that writes it and silences it everywhere: the function stays.
    Its activation is the stage's last ReLU output; the earlier ones are 's1_0', 's1_1'.

    Args:
      spec: the stream's, of images [H, W, C] or [H, W]; inputs [B, D] are reshaped.
      width: channels of the first stage.
      norm: 'batch', 'none', 'layer' or 'online' (`networks._normalise`), after every
        convolution.
      conv: 'patches' or 'direct' (`networks._conv`).
      input_norm: that of 'mlp', of each pixel of each colour by itself.
      input_decay: of its averages.

    Gates and dead units of a stream hold wherever it is read. Taps of inner units are
    added before the norm, those of a stream before the stage's last ReLU.

    Raises ValueError for inputs that are no images, for settings that do not exist,
    and for norm 'batch' with batch size 1.
    """
    # Departs from the paper: the released code resets a block's output channel in one
    # of the layers that write it only, and the skip path carries it on.
    if len(spec.input_shape) not in (2, 3):
        raise ValueError(
            f"resnet18 needs images [H, W, C] or [H, W], and the stream's inputs have "
            f"shape {list(spec.input_shape)}; network 'mlp' takes any shape"
        )
    if width < 1:
        raise ValueError(f"width {width}: at least 1")
    _normalise.check(norm, spec.batch_size)
    _conv.check(conv)
    _input_norm.check(input_norm, input_decay)
    image = (*spec.input_shape, 1)[:3]
    modules = _modules(image[2], width, spec.num_outputs)
    convolutions = [name for name in modules if name != "head"]
    units = _units(width)

    def init_net(key: Key) -> NetState:
        params = {}
        keys = jax.random.split(key, len(modules))
        for (name, module), k in zip(modules.items(), keys, strict=True):
            size = module.shape[-1]
            kernel = module.deviation * jax.random.normal(k, module.shape)
            params[name] = {"kernel": kernel, "bias": jnp.zeros(size)}
            if name != "head":
                params[name] |= _normalise.init_norm(norm, size)[0]
        sizes = {name: modules[name].shape[-1] for name in convolutions}
        stats = _normalise.init_stats(norm, sizes)
        stats |= _input_norm.init_stats(input_norm, math.prod(image))
        return NetState(params, stats, {}, None)

    def apply(net, x, *, train, key, taps=None, gates=None):
        del key  # no dropout
        taps, gates = taps or {}, gates or {}
        flat, stats = _input_norm.of_inputs(
            input_norm, dict(net.stats), x.reshape(x.shape[0], -1),
            train=train, decay=input_decay,
        )  # fmt: skip
        acts = {"x": flat.reshape(-1, *image)}

        def convolve(name, h, tap=0.0):
            """Convolution, bias, tap and normalisation of one module."""
            nonlocal stats
            kernel = _conv.kernel_of(net, name)
            z = _conv.conv(
                conv, h, kernel, stride=modules[name].stride,
                padding=kernel.shape[0] // 2,
            )  # fmt: skip
            z = z + net.params[name]["bias"] + tap
            alive = net.alive.get(unit_of[name])
            z, stats = _normalise.of_module(
                norm, net, stats, name, z, train=train, alive=alive
            )
            return z

        def relu(unit, z):
            """ReLU, without the units that are dead or closed."""
            h = jax.nn.relu(z)
            if unit in net.alive:
                h = jnp.where(net.alive[unit], h, 0.0)
            if unit in gates:
                gate = gates[unit]
                h = h * (gate if gate.ndim == 1 else gate[:, None, None])
            return h

        h = acts["x"]
        for s in range(1, STAGES + 1):
            stage = f"s{s}"
            if s == 1:
                h = acts["s1_0"] = relu(stage, convolve("stem", h))
            for b in range(1, BLOCKS + 1):
                block, last = f"{stage}b{b}", b == BLOCKS
                shortcut = convolve(f"{stage}skip", h) if s > 1 and b == 1 else h
                z = convolve(f"{block}c1", h, taps.get(block, 0.0))
                acts[block] = relu(block, z)
                z = shortcut + convolve(f"{block}c2", acts[block])
                z = z + taps.get(stage, 0.0) if last else z
                h = acts[stage if last else f"{stage}_{b}"] = relu(stage, z)
        logits = h.mean((1, 2)) @ _conv.kernel_of(net, "head")
        logits = logits + net.params["head"]["bias"] + taps.get("logits", 0.0)
        return logits, acts, stats

    unit_of = {name: unit.name for unit in units for name in unit.incoming}

    def columns(key, module, n):
        shape = (*modules[module].shape[:-1], n)
        return modules[module].deviation * jax.random.normal(key, shape)

    return Network(init_net, apply, columns, units)


def _modules(in_channels: int, width: int, outputs: int) -> dict[str, Module]:
    """All convolutions in the order of the forward pass, and the head."""

    def convolution(side: int, inputs: int, channels: int, stride: int = 1) -> Module:
        deviation = math.sqrt(2.0 / (side * side * inputs))
        return Module((side, side, inputs, channels), stride, deviation)

    modules = {"stem": convolution(3, in_channels, width)}
    inputs = width
    for s in range(1, STAGES + 1):
        channels, stride = width * 2 ** (s - 1), 1 if s == 1 else 2
        if s > 1:
            modules[f"s{s}skip"] = convolution(1, inputs, channels, stride)
        for b in range(1, BLOCKS + 1):
            first = stride if b == 1 else 1
            modules[f"s{s}b{b}c1"] = convolution(3, inputs, channels, first)
            modules[f"s{s}b{b}c2"] = convolution(3, channels, channels)
            inputs = channels
    modules["head"] = Module((inputs, outputs), 1, math.sqrt(1.0 / inputs))
    return modules


def _units(width: int) -> tuple[Unit, ...]:
    """Two inner layers and one residual stream a stage."""
    units = []
    for s in range(1, STAGES + 1):
        size, blocks = width * 2 ** (s - 1), [f"s{s}b{b}" for b in (1, 2)]
        units += [Unit(b, size, (f"{b}c1",), (f"{b}c2",)) for b in blocks]
        # The first block of a later stage reads the stream of the stage before.
        writers = ["stem" if s == 1 else f"s{s}skip", *(f"{b}c2" for b in blocks)]
        readers = [f"{b}c1" for b in (blocks if s == 1 else blocks[1:])]
        readers += ["head"] if s == STAGES else [f"s{s + 1}skip", f"s{s + 1}b1c1"]
        units.append(Unit(f"s{s}", size, tuple(writers), tuple(readers)))
    return tuple(units)
