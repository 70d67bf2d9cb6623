"""Resets of whole layers: of the head, of the last layers, of the whole network.

The head is reset at every task boundary but the first (Dohare et al. 2024: to 0 on
Continual ImageNet, drawn anew on CIFAR-100), the last layers at the end of every k-th
step (Nikishin et al. 2022), the whole network and its optimiser at every boundary but
the first (the retrained network of Dohare et al.). Choices: the moments of the layers
start at 0 with them, as in Nikishin et al.'s code; the step count, one for the whole
network, goes on, unless everything starts anew. Random parameters come in as `fresh`.
"""

from collections.abc import Sequence

from tests.reference.mlp import Params, cast, layer_names
from tests.reference.optimizers import OptState


def reset_layers(
    params: Params, opt_state: OptState, names: Sequence[str], fresh: Params | None
) -> tuple[Params, OptState]:
    """The layers `names` as in `fresh`, or 0 where that is None; their moments 0."""
    params = cast(params)
    trees = {key: cast(opt_state[key]) for key in ("m", "v") if key in opt_state}
    for name in names:
        for leaf, value in params[name].items():
            value[...] = 0.0 if fresh is None else fresh[name][leaf]
            for moments in trees.values():
                moments[name][leaf][...] = 0.0
    return params, {**opt_state, **trees}


def last(params: Params, layers: int) -> list[str]:
    """The names of the last `layers` layers, the head among them."""
    return layer_names(params)[-layers:]
