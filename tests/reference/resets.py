"""What a reset of hidden units does, for the oracles of ReDo, GraMa and SNR.

Incoming weights <- those of a fresh draw, every other leaf of the incoming module <-
its neutral value (Kumar et al.: its bias <- that of the initial network), outgoing
weights <- 0; the bias of the next layer is not touched.
Where units of two neighbouring layers go together, the weight that joins them is the
fresh one (layer by layer from the input: first outgoing 0, then incoming drawn), as in
continual backprop. Fully connected networks 'h1', 'h2', ..., 'head'.
"""

from itertools import pairwise

import numpy as np

from tests.reference.mlp import Params, cast, layer_names
from tests.reference.optimizers import OptState
from tests.reference.optimizers import reset_moments as reset_dense_moments

Masks = dict[str, np.ndarray]
NEUTRAL = {"bias": 0.0, "scale": 1.0, "shift": 0.0, "prelu": 0.25, "adalin": 0.0}


def reset_units(
    params: Params, masks: Masks, fresh: Params, with_bias: bool = False
) -> Params:
    """Parameters with the units of the masks [U] made new from `fresh`."""
    params = cast(params)
    for name, above in pairwise(layer_names(params)):
        mask = masks[name]
        for leaf, value in params[name].items():
            if leaf == "kernel":
                value[:, mask] = fresh[name]["kernel"][:, mask]
            elif leaf == "bias" and with_bias:
                value[mask] = fresh[name]["bias"][mask]
            else:
                value[mask] = NEUTRAL[leaf]
        params[above]["kernel"][mask, :] = 0
    return params


def reset_moments(opt_state: OptState, masks: Masks) -> OptState:
    """Moments 0 for all that was reset, outgoing weights too; step count kept."""
    opt_state = reset_dense_moments(opt_state, masks, "moments")
    for key in ("m", "v"):
        for name, mask in masks.items():
            for leaf, value in opt_state.get(key, {}).get(name, {}).items():
                if leaf != "kernel":
                    value[mask] = 0
    return opt_state
