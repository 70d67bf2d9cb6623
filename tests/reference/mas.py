"""Memory aware synapses (Aljundi et al. 2018).

After a task Omega <- Omega + mean_x |d ||f(x)||^2 / d theta|; loss of the next task:
L + lambda sum Omega (theta - theta_last)^2.

Choices: f is the logits in play; the absolute value is taken of every single example's
gradient ('example', the paper), or of a mini-batch's mean gradient ('batched', the
codebases), averaged over mini-batches; ||f||^2 is the sum over outputs in play
(the paper), or their mean (Hsu et al.'s code).
"""

from typing import Any

import numpy as np

from tests.reference.ewc import backpropagate
from tests.reference.mlp import Params, cast, forward, map_params


def importance(
    params: Params,
    batches: list[tuple[Any, Any, Any]],
    estimator: str,
    activation: str = "relu",
    outputs: str = "sum",
) -> Params:
    """One task's importances over mini-batches (x [B, D], y [B], classes [B, K])."""
    params = cast(params)
    total, count = map_params(np.zeros_like, params), 0
    for x, _, classes in batches:
        x = np.asarray(x, np.float64)
        logits = np.where(classes, forward(params, x, activation)[0], 0)
        of = np.sum(classes, axis=1) if outputs == "mean" else np.ones(len(x))
        single = [
            backpropagate(params, x[b], 2 * logits[b] / of[b], activation)
            for b in range(len(x))
        ]
        if estimator == "batched":
            single = [map_params(lambda *g: np.mean(g, axis=0), *single)]
        for g in single:
            total = map_params(lambda t, g: t + np.abs(g), total, g)
        count += len(single)
    return map_params(lambda t: t / count, total)
