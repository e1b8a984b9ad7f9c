"""What every component must do, and the shear that all elliptical ones share."""

from abc import abstractmethod
from typing import Any, ClassVar, Self

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffdeblend.fourier import Pair, shift
from diffdeblend.grid import Modes
from diffdeblend.parameters import DISK


class AbstractComponent(eqx.Module):
    """Light with a shape: a flux in every band times a profile of unit flux.

    To add a shape: subclass, declare its parameters with their domains, write `fourier`. Gradients
    and Gauss-Newton columns follow by autodiff.

    - `flux`: shape `(band,)`, or `(part, band)` for a component of several profiles. In the unit
        of the exposure; may be negative, so that the photometry of faint sources is unbiased.
    - `x`, `y`: centre, in pixels; the first pixel is centred on `(0, 0)`.
    """

    # Whether `columns` makes the Gauss-Newton columns, and not autodiff of `fourier`.
    has_columns: ClassVar[bool] = False

    flux: eqx.AbstractVar[Float[Array, "*part band"]]
    x: eqx.AbstractVar[Float[Array, ""]]
    y: eqx.AbstractVar[Float[Array, ""]]

    @abstractmethod
    def fourier(self, modes: Modes) -> Pair:
        """The profile of unit flux at its place: real and imaginary part, each `(*part, k)`.

        A pair, not a stack: XLA on CPU turns code fused with a stack into scalar code.
        """

    def columns(self, modes: Modes) -> tuple[Pair, Pair]:
        """The profile of one part, `(k,)`, and its derivatives, `(parameter, k)`.

        For components whose derivatives cost less together than one by one, which say so by
        `has_columns`. Parameters are those of `diffdeblend.parameters.pack`, mapped.
        """
        raise NotImplementedError(f"{type(self).__name__} has no columns of its own.")

    def wings(self, x: Float[Array, "*p"], y: Float[Array, "*p"]) -> Float[Array, "..."]:
        """Surface brightness of unit flux at far points, `(*part, *p)`, per square pixel.

        Used where a profile's wings come back around the period of the Fourier series. Zero for
        profiles that end before.
        """
        return jnp.zeros((*self.flux.shape[:-1], *x.shape), dtype=self.flux.dtype)

    def split(self) -> tuple[Self, Any]:
        """What is this component's own, and what it shares with others: None, or a pytree.

        A stack keeps the latter once; `with_shared` puts both together again.
        """
        return self, None

    def with_shared(self, shared: Any) -> Self:
        """Inverse of `split`."""
        return self

    def constrained(self) -> "AbstractComponent":
        """The nearest component that keeps the constraints no domain can express."""
        return self


def sheared_frequency(modes: Modes, ellipticity: Float[Array, "2"]) -> Float[Array, "k"]:
    """Squared frequency in the frame where the sheared profile is round.

    `ellipticity`: reduced shear (g1, g2); positive g1 stretches along x. Area is conserved.

    ??? cite
        Bernstein & Jarvis (2002), AJ 123, 583, eq. 2.8; GalSim's convention.
    """
    xx, xy, yy = shear_form(ellipticity)
    return xx * modes.kx**2 + yy * modes.ky**2 + xy * (2 * modes.kx * modes.ky)


def shear_form(ellipticity: Float[Array, "2"]) -> tuple[Array, Array, Array]:
    """xx, xy and yy of the form xx kx^2 + 2 xy kx ky + yy ky^2 that `sheared_frequency` is."""
    g1, g2 = ellipticity[0], ellipticity[1]
    norm = 1 / (1 - g1**2 - g2**2)
    return norm * ((1 + g1) ** 2 + g2**2), norm * 2 * g2, norm * ((1 - g1) ** 2 + g2**2)


def bulge_shear(ellipticity: Float[Array, "2"], ratio: Float[Array, ""]) -> Float[Array, "2"]:
    """Reduced shear of a bulge that is rounder than its disc, along the same axis.

    `ratio`: of the two in the unbounded variable of the domain `unit_disk`, so that any is allowed.
    """
    return DISK.from_real(ratio * DISK.to_real(ellipticity))


def unsheared_distance(
    dx: Float[Array, "*p"], dy: Float[Array, "*p"], ellipticity: Float[Array, "2"]
) -> Float[Array, "*p"]:
    """Squared distance from the centre in the frame where the sheared profile is round."""
    g1, g2 = ellipticity[0], ellipticity[1]
    norm = 1 / (1 - g1**2 - g2**2)
    along = (1 - g1) * dx - g2 * dy
    across = (1 + g1) * dy - g2 * dx
    return norm * (along**2 + across**2)


def place(profile: Array, modes: Modes, x: Array, y: Array) -> Pair:
    """A real profile, `(*part, k)`, moved from the origin to (x, y)."""
    re, im = shift(modes, x, y)
    return profile * re, profile * im


def check_flux(flux: Array, parts: int | None = None) -> None:
    """**Raises:** `ValueError` if `flux` is not one number per band (and part)."""
    wanted = "(band,)" if parts is None else f"({parts}, band)"
    if flux.ndim != (1 if parts is None else 2) or (parts is not None and flux.shape[0] != parts):
        raise ValueError(f"`flux` needs shape {wanted}; got {flux.shape}.")
