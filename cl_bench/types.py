"""The contracts: every component is a NamedTuple of pure functions over these types.

Shapes: B batch, K outputs, U units of a layer, T tasks, L lanes. A run is
tasks -> segments -> steps; everything expensive happens at segment ends.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from jax import Array

PyTree = Any
Key = Array  # typed threefry key, ()


class Clock(NamedTuple):
    """Position in the run: traced, the same in every lane, never stored in a state.

    What a method may not know it sees as `task = 0`, `step_in_task = step`.
    """

    step: Array  # () int32, optimiser steps since the start of the run
    task: Array  # () int32
    step_in_task: Array  # () int32
    step_scale: Array | float = 1.0  # factor of `StreamSpec.step_schedule` at this step


class Dataset(NamedTuple):
    """Device-resident examples, passed as an argument and never closed over."""

    train_x: Array  # [N, ...] uint8 images, or float32
    train_y: Array  # [N] int32
    test_x: Array
    test_y: Array


class Batch(NamedTuple):
    """One mini-batch."""

    x: Array  # [B, ...] float32
    y: Array  # [B] int32, or [B, K] float32
    weight: Array  # [B] float32, 0 = padding
    classes: Array  # [B, K] bool, outputs in play for each example
    task: Array  # [B] int32, 0 unless the method may know it


class Loss(NamedTuple):
    """What a stream asks of the logits."""

    per_example: Callable[[Array, Array], Array]  # (logits [B, K], y) -> [B]
    score: Callable[
        [Array, Array], Array
    ]  # (logits, y) -> [B] in [0, 1], higher better
    predictive: Callable[[Array], Array]  # logits -> [B, K] probabilities (Fisher)


class StreamSpec(NamedTuple):
    """The static facts of a stream (hashable)."""

    input_shape: tuple[int, ...]
    num_outputs: int
    num_tasks: int
    steps_per_task: int | tuple[int, ...]  # unequal tasks: one length a task
    steps_per_segment: int
    batch_size: int
    examples_per_task: int  # the smallest task's, where tasks are unequal
    scenario: str  # 'task' | 'domain' | 'class' | 'online'
    offers: frozenset[str]  # of {'boundaries', 'task_id', 'validation'}
    loss: Loss
    reset_head: bool  # the benchmark resets the head at task start, for every method
    own_outputs: bool = False  # each task has outputs that no other task has
    has_test: bool = True  # `held_out` has 'test' examples
    num_classes: int = 0  # classes of all tasks, where an output stands for several
    # Two more rules of a benchmark, for every method alike. Step sizes are multiplied
    # by `factor` from that `fraction` of each task on; and the network that scores best
    # on so many 'fit' minibatches at the segment ends is put back before end_task.
    step_schedule: tuple[tuple[float, float], ...] = ()  # (fraction, factor), ascending
    restore_best: int = 0
    task_examples: tuple[int, ...] = ()  # of each task, where they differ by design

    @property
    def multi_head(self) -> bool:
        """Whether each task's number is known, and its outputs are its own."""
        return self.scenario == "task" and self.own_outputs


class Stream(NamedTuple):
    """A source of tasks."""

    spec: StreamSpec
    load: Callable[[], Dataset]  # host, once
    start: Callable[[Dataset, Key, Array], PyTree]  # (data, the run's stream key, task)
    batch: Callable[[Dataset, PyTree, Array], Batch]  # (data, task state, step_in_task)
    held_out: Callable[[Dataset, PyTree, str, Array, Array], Batch]
    # (data, task state, split of 'fit' | 'tune' | 'test', task `now`, i) -> minibatch i


class Unit(NamedTuple):
    """Static row of a network's table: who writes and who reads one hidden layer."""

    name: str
    size: int
    incoming: tuple[str, ...]  # modules whose OUTPUT (last) axis is this layer
    outgoing: tuple[str, ...]  # modules whose INPUT (second last) axis is this layer
    repeat: int = 1  # input rows per unit after a flatten (conv -> dense)


class NetState(NamedTuple):
    """All that a network is."""

    params: dict[str, Any]  # module -> {'kernel': [..., in, out], 'bias': [out], ...}
    # (further leaves [out]: `units.NEUTRAL_LEAVES`)
    stats: PyTree  # module -> normalisation state, {} if none; 'backward': see compose
    alive: dict[str, Array]  # Unit.name -> [U] bool; {} = no spare capacity, all alive
    edges: PyTree | None = None  # module -> [..., in, out] bool; None = all allowed


class Network(NamedTuple):
    """Pure initialisation and forward pass.

    `apply(net, x, *, train, key, taps=None, gates=None)` gives logits [B, K], the
    activations by name (each layer's *input* is there too: 'x', then one entry a
    `Unit`: [B, ..., U], or [B, ..., 2, U] where a unit has two features), and the new
    `stats`. `taps` (unit or 'logits' -> zeros of the
    pre-activation's shape) are added to the pre-activations; `gates` (unit -> [U] or
    [B, U] float) multiply the activations.
    `columns(key, module, n)` draws n fresh columns [..., in, n] of a module's kernel
    from its own initialiser, so that replacing one unit never redraws the network.
    """

    init: Callable[[Key], NetState]
    apply: Callable[..., tuple[Array, dict[str, Array], PyTree]]
    columns: Callable[[Key, str, int], Array]
    units: tuple[Unit, ...]
    head: str = "head"  # module that writes the logits


class Learner(NamedTuple):
    """All that a method owns: the scan's carry and the checkpoint."""

    net: NetState
    opt: PyTree
    extra: dict[str, PyTree]


class Signals(NamedTuple):
    """What one step saw (before the update); may be looked at, never carried."""

    loss: Array  # () float32
    logits: Array  # [B, K], masked
    acts: dict[str, Array]
    grads: PyTree
    updates: PyTree


TrainBatches = Callable[[Array], Batch]  # i -> training batch i of the current task


class Method(NamedTuple):
    """A learning rule. Fields other than init, step and predict may be the identity."""

    init: Callable[[Key], Learner]
    start_task: Callable[[Key, Clock, TrainBatches, Learner], Learner]
    step: Callable[[Key, Clock, Batch, Learner], tuple[Learner, Signals]]
    end_segment: Callable[[Key, Clock, TrainBatches, Learner], Learner]
    end_task: Callable[[Key, Clock, TrainBatches, Learner], Learner]
    predict: Callable[[Learner, Batch], tuple[Array, dict[str, Array]]]
    # False: `predict` answers some task with other weights than those of `learner.net`.
    answers_by_net: bool = True
    # Of a method that freezes weights for each task: those that answer for the task of
    # the batch and do not move once it has ended, module -> bools that broadcast over
    # its kernel. None: it freezes none.
    task_weights: Callable[[Learner, Batch], dict[str, Array]] | None = None


class GradTransform(NamedTuple):
    """What stands between the gradient and the optimiser."""

    init: Callable[[NetState], PyTree]
    update: Callable[
        [Key, Clock, PyTree, NetState, PyTree], tuple[PyTree, PyTree]
    ]  # (key, clock, gradients, net, own state) -> gradients, own state


class NetTransform(NamedTuple):
    """optax for network states: runs after the gradient update."""

    init: Callable[[NetState], PyTree]
    update: Callable[
        [Key, Clock, Signals, NetState, PyTree], tuple[NetState, PyTree, PyTree | None]
    ]  # -> net, own state, mask of reset parameters (None: nothing is ever reset)


class Probe(NamedTuple):
    """What a metric may read at a segment's or a task's end, and before its first step."""

    clock: Clock
    learner: Learner
    predict: Callable[[Learner, Batch], tuple[Array, dict[str, Array]]]
    train: TrainBatches
    held_out: Callable[[Array, str, Array], Batch]  # (task, split, i)
    # As the method's; None where it has none.
    task_weights: Callable[[Learner, Batch], dict[str, Array]] | None = None


class Metric(NamedTuple):
    """Accumulated every step, read at segment and task ends; gets the true clock."""

    init: Callable[[], PyTree]
    read_start: Callable[[Probe], dict[str, Array]]  # before the task's first step
    update: Callable[[PyTree, Clock, Batch, Learner, Signals], PyTree]  # sums only
    read_segment: Callable[[PyTree, Probe], dict[str, Array]]
    read: Callable[[PyTree, Probe], dict[str, Array]]  # once a task, may be costly
    # Before `read`: the state that it reads and the next task starts with. None: `read`
    # has the state as it is, and the next task starts with init().
    end_task: Callable[[PyTree, Probe], PyTree] | None = None
    # Raises ValueError for a method that it cannot measure. None: it measures any.
    check: Callable[[Method], None] | None = None
