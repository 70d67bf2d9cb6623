"""Bounds of the uniform initialisers, shared by every network and by every reset."""

import math

GAINS = {
    "relu": math.sqrt(2.0),
    "leaky_relu": math.sqrt(2.0 / (1.0 + 0.01**2)),
    "tanh": 5.0 / 3.0,
    "sigmoid": 1.0,
    "elu": math.sqrt(2.0),  # the reference treats ELU and swish as ReLU
    "swish": math.sqrt(2.0),
    "linear": 1.0,
    # Two features a unit, of fan_in 2 U: E relu(z)^2 + E relu(-z)^2 = E z^2 of the U
    # pre-activations, sin^2 + cos^2 = 1; sqrt(2) keeps, or gives, unit variance.
    "crelu": math.sqrt(2.0),
    "fourier": math.sqrt(2.0),
    # As the function is at the start: slope 1/4, and AdaLin's added term 0.
    "prelu": math.sqrt(2.0 / (1.0 + 0.25**2)),
    "adalin_relu": math.sqrt(2.0),
    "adalin_tanh": 5.0 / 3.0,
}
INITS = ("kaiming", "lecun", "xavier", "pytorch")


def kernel_bound(init: str, activation: str, fan_in: int, fan_out: int) -> float:
    """b of U(-b, b) for a kernel.

    kaiming: gain sqrt(3 / fan_in); lecun: sqrt(3 / fan_in); xavier: gain
    sqrt(6 / (fan_in + fan_out)); pytorch: sqrt(1 / fan_in), the default of
    `torch.nn.Linear`. Source: Dohare et al. 2024, released code.
    Raises ValueError for an unknown name.
    """
    if init not in INITS:
        raise ValueError(f"init {init!r} is none of {sorted(INITS)}")
    gain = GAINS[activation]
    return {
        "kaiming": gain * math.sqrt(3.0 / fan_in),
        "lecun": math.sqrt(3.0 / fan_in),
        "xavier": gain * math.sqrt(6.0 / (fan_in + fan_out)),
        "pytorch": math.sqrt(1.0 / fan_in),
    }[init]


def bias_bound(init: str, fan_in: int) -> float:
    """b of U(-b, b) for a bias: 0 but for 'pytorch', whose biases are drawn too."""
    return math.sqrt(1.0 / fan_in) if init == "pytorch" else 0.0
