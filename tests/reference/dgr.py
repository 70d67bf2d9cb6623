"""Deep generative replay (Shin et al. 2017; weights of van de Ven & Tolias 2019).

After t tasks, network and generator minimise L / (t + 1) + t L' / (t + 1), L' the loss of
inputs x' from the generator at the end of the task before. The network's target for x' is
the answer of the network of that time: for a set S of old outputs, its largest output in
S ('hard'), or its softmax over S at a temperature ('soft'), against the network's softmax
over `shown`; the mean over sets.
"""

import numpy as np

from tests.reference import logits as by_logits
from tests.reference.lwf import kd, softmax
from tests.reference.mlp import Params, forward, map_params


def mix(current: Params, replayed: Params, tasks: int, replay_weight: float) -> Params:
    """(1 - a) current + a replayed, a = r t / (1 + r t)."""
    a = replay_weight * tasks / (1 + replay_weight * tasks)
    return map_params(lambda c, r: (1 - a) * c + a * r, current, replayed)


def hard(params: Params, teacher: Params, x, old, shown) -> Params:
    """The gradient of the mean of -log p[largest old output of the teacher]."""
    old = np.broadcast_to(old, (len(x), len(old)))
    label = np.where(old, forward(teacher, x)[0], -np.inf).argmax(axis=1)
    delta = softmax(forward(params, x)[0], np.broadcast_to(shown, old.shape))
    delta[np.arange(len(x)), label] -= 1
    return by_logits.vjp(params, x, delta / len(x))


def replayed_gradient(
    params: Params, teacher: Params, x, sets, shown, targets: str, temperature: float
) -> Params:
    """The gradient of L', the mean over `sets` of the outputs of earlier tasks."""
    total = map_params(np.zeros_like, params)
    for old, over in zip(sets, shown, strict=True):
        if targets == "hard":
            grads = hard(params, teacher, x, old, over)
        else:
            weight = np.ones(len(x))
            grads = kd(params, teacher, x, old, over, weight, temperature)[1]
        total = map_params(lambda t, g: t + g / len(sets), total, grads)
    return total
