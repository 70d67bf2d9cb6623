"""Adam with equal betas (Lyle et al. 2023; Dohare et al. 2024, RL): b1 = b2 = .99.

With b1 = b2 the moments are weighted means of g and g^2 with the same weights, so that
m_hat^2 <= v_hat: no step is larger than alpha.
"""

from tests.reference.mlp import Params
from tests.reference.optimizers import OptState, adam
from tests.reference.optimizers import init_adam as init


def step(
    params: Params,
    grads: Params,
    opt_state: OptState,
    *,
    step_size: float,
    beta: float = 0.99,
    eps: float = 1e-8,
) -> tuple[Params, OptState]:
    """One step of Adam with b1 = b2 = beta."""
    return adam(
        params, grads, opt_state, step_size=step_size, b1=beta, b2=beta, eps=eps
    )


__all__ = ["init", "step"]
