"""A variational autoencoder with one hidden part down and one up (Kingma & Welling 2014).

Encoder: h = relu layers of x; mean = h W + b, log_var = h W' + b'. z = mean +
exp(log_var / 2) eps. Decoder: relu layers of z, then o, D numbers. The loss of one x is
-log p(x | z) + KL, summed over the D inputs and the Z latent numbers, with

    bernoulli  -log p = -x log s(o) - (1 - x) log(1 - s(o)), s the logistic function
    gaussian   -log p = (x - o)^2 / 2 (without its constant)
    KL(N(mean, exp(log_var)) || N(0, 1)) = (mean^2 + exp(log_var) - 1 - log_var) / 2.
"""

import numpy as np

from tests.reference.mlp import Params, sigmoid


def chain(params: Params, part: str) -> list[str]:
    """The names 'part_1', 'part_2', ... in order."""
    names = [name for name in params if name.startswith(part)]
    return sorted(names, key=lambda name: int(name.split("_")[1]))


def dense(params: Params, name: str, h: np.ndarray) -> np.ndarray:
    return h @ params[name]["kernel"] + params[name]["bias"]


def relus(params: Params, part: str, h: np.ndarray) -> list[np.ndarray]:
    """Input and output of every hidden layer of a part."""
    found = [h]
    for name in chain(params, part):
        found.append(np.maximum(dense(params, name, found[-1]), 0))
    return found


def decode(params: Params, z: np.ndarray) -> np.ndarray:
    """The output o, before the logistic function."""
    return dense(params, "output", relus(params, "decoder", z)[-1])


def sample(params: Params, z: np.ndarray, decoder: str) -> np.ndarray:
    """What the decoder expects."""
    o = decode(params, z)
    return sigmoid(o) if decoder == "bernoulli" else o


def losses(params: Params, x, eps, decoder: str) -> np.ndarray:
    """The loss of each example, [B]."""
    x, eps = np.asarray(x, np.float64), np.asarray(eps, np.float64)
    h = relus(params, "encoder", x)[-1]
    mean, log_var = dense(params, "mean", h), dense(params, "log_var", h)
    o = decode(params, mean + np.exp(log_var / 2) * eps)
    if decoder == "bernoulli":
        p = sigmoid(o)
        error = -x * np.log(p) - (1 - x) * np.log(1 - p)
    else:
        error = (x - o) ** 2 / 2
    kl = (mean**2 + np.exp(log_var) - 1 - log_var) / 2
    return error.sum(axis=1) + kl.sum(axis=1)


def gradient(params: Params, x, eps, share, decoder: str) -> Params:
    """The gradient of sum_b share_b loss_b."""
    x, eps = np.asarray(x, np.float64), np.asarray(eps, np.float64)
    share = np.asarray(share)[:, None]
    down = relus(params, "encoder", x)
    mean, log_var = dense(params, "mean", down[-1]), dense(params, "log_var", down[-1])
    spread = np.exp(log_var / 2)
    up = relus(params, "decoder", mean + spread * eps)
    o, grads = dense(params, "output", up[-1]), {}

    def back(name: str, h: np.ndarray, delta: np.ndarray) -> np.ndarray:
        grads[name] = {"kernel": h.T @ delta, "bias": delta.sum(axis=0)}
        return delta @ params[name]["kernel"].T

    def back_relus(part: str, outputs: list[np.ndarray], delta: np.ndarray):
        for i, name in reversed(list(enumerate(chain(params, part)))):
            delta = back(name, outputs[i], delta * (outputs[i + 1] > 0))
        return delta

    wrong = sigmoid(o) - x if decoder == "bernoulli" else o - x
    dz = back_relus("decoder", up, back("output", up[-1], share * wrong))
    d_mean = dz + share * mean
    d_log_var = dz * eps * spread / 2 + share * (spread**2 - 1) / 2
    dh = back("mean", down[-1], d_mean) + back("log_var", down[-1], d_log_var)
    back_relus("encoder", down, dh)
    return grads
