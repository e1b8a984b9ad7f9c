"""How far the light of a pixel counts: kernels of a density estimate, and where they end."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# 4.80981 widths, the radius that ASTErIsM prints for a Gaussian; 9.5e-6 of its peak.
_AUTO_RADIUS = 4805 / 999
_AUTO_SHARE = float(np.exp(-0.5 * _AUTO_RADIUS**2))


def gauss(u2: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """exp(-u²/2)."""
    return jnp.exp(-0.5 * u2)


def uniform(u2: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """1 up to u = 1."""
    return jnp.where(u2 <= 1, jnp.ones_like(u2), 0)


def logistic(u2: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """4 / (eᵘ + 2 + e⁻ᵘ), which is 1 at 0."""
    # With e⁻ᵘ alone nothing overflows; the root has no slope at 0.
    tail = jnp.exp(-jnp.where(u2 > 0, jnp.sqrt(jnp.where(u2 > 0, u2, 1)), 0))
    return 4 * tail / (1 + tail) ** 2


def epanechnikov(u2: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """1 - u² up to u = 1."""
    return jnp.maximum(1 - u2, 0)


Kernel = Callable[[Float[Array, "*n"]], Float[Array, "*n"]]
KERNELS: dict[str, Kernel] = {
    "gauss": gauss,
    "uniform": uniform,
    "logistic": logistic,
    "epanechnikov": epanechnikov,
}


def kernel_radius(kernel: str, share: float | None = None) -> float:
    """Radius in units of the width at which a kernel has fallen to a share of its peak.

    - `kernel`: "gauss", "uniform", "logistic" or "epanechnikov".
    - `share`: between 0 and 1; `None` for that of a Gaussian at 4.80981 widths, 9.5e-6.

    **Raises:** `ValueError` for another kernel or share.
    """
    check_kernel(kernel)
    if share is None:
        if kernel == "gauss":
            return _AUTO_RADIUS
        share = _AUTO_SHARE
    if not 0 < share < 1:
        raise ValueError(f"`R_max_kern_th` must lie between 0 and 1; got {share}.")
    if kernel == "gauss":
        return float(np.sqrt(-2 * np.log(share)))
    if kernel == "logistic":
        return float(2 * np.arccosh(1 / np.sqrt(share)))
    return float(np.sqrt(1 - share)) if kernel == "epanechnikov" else 1.0


def check_kernel(kernel: str) -> None:
    """Refuses a kernel that is none of ours."""
    if kernel not in KERNELS:
        raise ValueError(f"`kernel` must be one of {', '.join(KERNELS)}; got {kernel!r}.")
