"""Deep generative replay: a generator of past inputs, labelled by the past network."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from cl_bench import optimizers
from cl_bench.losses import mask_logits, squared_error, weighted_mean
from cl_bench.methods import _replay, _vae
from cl_bench.methods._compose import compose
from cl_bench.methods._distillation import distillation, met_outputs, old_outputs
from cl_bench.types import (
    Batch,
    Clock,
    Key,
    Learner,
    Method,
    Network,
    PyTree,
    StreamSpec,
)

REFERENCE = (
    "Shin et al., NeurIPS 2017 (arXiv 1705.08690), known to us from other "
    "implementations of it; a VAE as generator and all settings: van de Ven and Tolias, "
    "2019 (arXiv 1904.07734), released code, GMvandeVen/continual-learning"
)
NEEDS = frozenset({"boundaries"})
NEUTRAL = {"replay_weight": 0.0}
TARGETS = ("hard", "soft")


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """Van de Ven's for Split MNIST, whose optimiser is Adam at 0.001 for both networks.

    Both take the optimiser that the settings name, each with its own step size. Permuted
    MNIST there: 1000 units a layer, and 0.0001. `latent` is from memory of that code.
    None replays as many examples as the stream's batch has.
    """

    replay_weight: float = 1.0
    temperature: float = 2.0  # 'soft' only
    generator_step_size: float = 0.001
    targets: str = struct.field(pytree_node=False, default="hard")
    decoder: str = struct.field(pytree_node=False, default="bernoulli")
    generator_hidden: tuple[int, ...] = struct.field(
        pytree_node=False, default=(400, 400)
    )
    latent: int = struct.field(pytree_node=False, default=100)
    replay_batch_size: int | None = struct.field(pytree_node=False, default=None)


def check(hyper: Hyper) -> None:
    """Raise ValueError for an option or a size that cannot be, or an empty replay."""
    if hyper.targets not in TARGETS:
        raise ValueError(f"targets={hyper.targets!r} is none of {', '.join(TARGETS)}")
    _vae.check(tuple(hyper.generator_hidden), hyper.latent, hyper.decoder)
    _replay.check_size(hyper.replay_batch_size)


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """After t tasks, (1 - a) L(batch) + a L(replayed) for network and generator alike,
    a = r t / (1 + r t), r = `replay_weight`; r = 1 gives the new task 1 / (t + 1).

    Inputs are drawn from the generator as it was at the end of the task before (anew for
    each of the two), targets are the answers of the network of that time. With p the
    network's and q the old one's probabilities over a set S of old outputs, L(replayed)
    is -log p of the largest q ('hard') or -sum q log p at `temperature` ('soft'),
    averaged over inputs and sets: one set for each earlier task in scenario 'task', all
    outputs that had labels in 'class', where p is over those now in play too, else all
    (with a `single_head`, and 'online', as an oracle, where tasks' outputs are unknown).

    The generator is a VAE (`_vae`), its loss the negative ELBO divided by the number of
    inputs. decoder 'bernoulli' takes inputs in [0, 1] (scale 'zero_one'): any other
    input makes the generator, and from the second task on the lane, not a number, so
    that it is recorded as diverged; 'gaussian' takes any (scale 'standardise').
    Memory: two generators, with one's moments, and the old network.

    Raises ValueError as `check` does, and for a stream whose targets are not classes.
    """
    check(hyper)
    if spec.loss is squared_error:
        raise ValueError(
            "dgr labels what it generates with classes, and this stream is a "
            "regression; experience_replay works there"
        )
    own = dataclasses.replace(hyper, step_size=hyper.generator_step_size)
    optim = optimizers.make(own)
    size = hyper.replay_batch_size or spec.batch_size

    def extra_loss(key, clock, params, learner, batch, logits):
        draw, forward = (jax.random.fold_in(key, i) for i in range(2))

        def rehearse(params, logits):
            old = learner.extra["old_generator"]
            x = _vae.sample(old, draw, size, hyper.decoder)
            x = x.reshape(size, *spec.input_shape)
            old_net = learner.extra["old_network"]
            answers, _, _ = net.apply(old_net, x, train=False, key=None)
            recalled = _replay.logits_of(net, forward, params, learner, x)
            sets = old_outputs(spec, clock, learner.extra["outputs"])
            now = batch.classes & (batch.weight > 0)[:, None]
            shown = sets | jnp.any(now, axis=0) if spec.scenario == "class" else sets
            replayed = replay_loss(hyper, recalled, answers, sets, shown)
            current = _replay.mean_loss(spec, logits, batch)
            return _replay.mixed(current, replayed, share(hyper, clock))

        # The first task has nothing to rehearse, and does not pay for it.
        none = lambda params, logits: jnp.zeros(())
        return jax.lax.cond(clock.task > 0, rehearse, none, params, logits)

    def after_step(key, clock, batch, signals, learner):
        del signals
        grads = generator_gradient(hyper, size, key, clock, batch, learner)
        generator, opt = learner.extra["generator"], learner.extra["generator_opt"]
        updates, opt = optim.update(grads, opt, generator)
        if spec.step_schedule:
            updates = jax.tree.map(lambda u: clock.step_scale * u, updates)
        generator = jax.tree.map(lambda p, u: p + u, generator, updates)
        outputs = met_outputs(spec, clock, batch, learner.extra["outputs"])
        new = {"generator": generator, "generator_opt": opt, "outputs": outputs}
        return learner._replace(extra={**learner.extra, **new})

    def end_task(key, clock, train, learner):
        del key, clock, train
        old = {
            "old_network": learner.net,
            "old_generator": learner.extra["generator"],
        }
        return learner._replace(extra={**learner.extra, **old})

    base = compose(
        net,
        spec,
        optimizers.make(hyper),
        extra_loss=extra_loss,
        after_step=after_step,
        end_task=end_task,
    )

    def init(key: Key) -> Learner:
        learner = base.init(key)
        inputs, hidden = math.prod(spec.input_shape), tuple(hyper.generator_hidden)
        generator = _vae.init(jax.random.fold_in(key, 1), inputs, hidden, hyper.latent)
        extra = {
            "generator": generator,
            "generator_opt": optim.init(generator),
            "old_generator": generator,
            "old_network": learner.net,
            "outputs": jnp.zeros((spec.num_tasks, spec.num_outputs), bool),
        }
        return learner._replace(extra={**learner.extra, **extra})

    return base._replace(init=init)


def generator_gradient(
    hyper: Hyper, size: int, key: Key, clock: Clock, batch: Batch, learner: Learner
) -> PyTree:
    """Of (1 - a) L(batch) + a L(`size` inputs of the old generator), see `make`."""
    noise, draw, old_noise = (jax.random.fold_in(key, i) for i in range(3))
    x = batch.x.reshape(len(batch.x), -1)

    def loss(generator: PyTree, key: Key, x: Array, weight: Array) -> Array:
        eps = jax.random.normal(key, (len(x), hyper.latent))
        each = _vae.negative_elbo(generator, x, eps, hyper.decoder)
        return weighted_mean(each, weight) / x.shape[1]

    def objective(generator: PyTree) -> Array:
        current = loss(generator, noise, x, batch.weight)

        def rehearse(generator, current):
            old = learner.extra["old_generator"]
            drawn = _vae.sample(old, draw, size, hyper.decoder)
            replayed = loss(generator, old_noise, drawn, jnp.ones(size))
            return current + _replay.mixed(current, replayed, share(hyper, clock))

        alone = lambda generator, current: current
        return jax.lax.cond(clock.task > 0, rehearse, alone, generator, current)

    return jax.grad(objective)(learner.extra["generator"])


def share(hyper: Hyper, clock: Clock) -> Array:
    """a = r t / (1 + r t), the replayed share after t tasks."""
    weight = hyper.replay_weight * clock.task
    return weight / (1.0 + weight)


def replay_loss(
    hyper: Hyper, student: Array, teacher: Array, sets: Array, shown: Array
) -> Array:
    """The mean over inputs, and over the sets [S, K] that are not empty, of one set's.

    `student` and `teacher` are logits [n, K], `shown` [S, K] the outputs that the
    student's probabilities are over.
    """
    old, over = sets[:, None, :], shown[:, None, :]
    if hyper.targets == "soft":
        each = distillation(student, teacher, old, over, hyper.temperature)
    else:
        label = jnp.argmax(mask_logits(teacher, old), axis=-1)
        log_p = jax.nn.log_softmax(mask_logits(student, over))
        chosen = old & jax.nn.one_hot(label, student.shape[-1], dtype=bool)
        each = -jnp.sum(jnp.where(chosen, log_p, 0.0), axis=-1)
    number = jnp.maximum(jnp.sum(jnp.any(sets, axis=1)), 1)
    return jnp.mean(jnp.sum(each, axis=0)) / number
