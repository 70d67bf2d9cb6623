"""Slowly-changing regression in plain loops: target network, inputs, and a learner.

Written from Dohare et al. (2023) and the procedure of their released code. Random
numbers come in as arguments, so that two implementations can be given the same ones.
"""

import numpy as np


def threshold(weights: list[float], bias: float, beta: float) -> float:
    """theta of one unit: beta (m + 1) - S; S = (m - sum of weights + bias) / 2.

    S is meant as the number of negative weights; (m - sum) / 2 counts those among the
    m weights, and the bias enters with the wrong sign, which leaves half-integers.
    """
    m = len(weights)
    negative = sum(1 for w in weights if w < 0)
    return beta * (m + 1) - (negative + bias / 2)


def respond(weights, biases, out_weights, out_bias: float, beta: float, x) -> float:
    """y of one input x [m]; weights [H, m], biases and out_weights [H]."""
    y = out_bias
    for w, b, v in zip(weights, biases, out_weights, strict=True):
        drive = sum(wi * xi for wi, xi in zip(w, x, strict=True)) + b
        y += v if drive > threshold(list(w), b, beta) else 0.0
    return y


def flip_one(first: np.ndarray, choices: list[int]) -> np.ndarray:
    """[len(choices) + 1, f]: the bits of each task; one flips with every new task."""
    tasks = [np.array(first)]
    for chosen in choices:
        bits = tasks[-1].copy()
        bits[chosen] = 1 - bits[chosen]
        tasks.append(bits)
    return np.stack(tasks)


def draw_targets(rng: np.random.Generator, m: int, units: int, beta: float, x):
    """y [N] of inputs x [N, m] under a newly drawn network."""
    weights = rng.choice([-1.0, 1.0], (units, m))
    biases = rng.choice([-1.0, 1.0], units)
    theta = [threshold(list(w), b, beta) for w, b in zip(weights, biases, strict=True)]
    fires = x @ weights.T + biases > np.array(theta)
    return fires @ rng.choice([-1.0, 1.0], units) + rng.choice([-1.0, 1.0])


def train_relu(params, x, y, step_size: float):
    """Pre-update squared errors of a one-hidden-layer ReLU net, one example a step.

    `params` is (W [m, U], b [U], v [U], c ()); returns (errors [N], new params).
    """
    W, b, v, c = (np.array(p, float) for p in params)
    errors = []
    for xi, yi in zip(x, y, strict=True):
        h = np.maximum(xi @ W + b, 0.0)
        delta = h @ v + c - yi
        errors.append(delta**2)
        back = 2 * delta * v * (h > 0)
        v -= step_size * 2 * delta * h
        c -= step_size * 2 * delta
        W -= step_size * np.outer(xi, back)
        b -= step_size * back
    return np.array(errors), (W, b, v, c)
