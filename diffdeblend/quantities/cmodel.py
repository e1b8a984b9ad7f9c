r"""CModel: the sum of an exponential and a de Vaucouleurs profile, neither negative.

Each profile is fitted alone, through the exact PSF with the centre held, and then both ellipses and
amplitudes together. That last is ours: elsewhere the ellipses are held and the amplitudes alone are
fitted together, which makes mixtures too bright.

??? cite
    Abazajian et al. (2004), AJ 128, 502, sec. 3.1 (SDSS); Bosch et al. (2018), PASJ 70, S5,
    sec. 4.9.9 (HSC). Priors and errors here are others: see `ShapePrior`, `PairPrior` and
    `CModel`.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from diffdeblend.quantities.cmodel_amplitudes import (
    Sums,
    chi2,
    make_sums,
    shape_response,
    two_amplitudes,
)
from diffdeblend.quantities.cmodel_fit import coarse_problem, fit_shape
from diffdeblend.quantities.cmodel_images import (
    profile_image,
    shape_matrix,
    shape_numbers,
)
from diffdeblend.quantities.cmodel_joint import fit_joint, joint_images, joint_response
from diffdeblend.quantities.cmodel_minimise import Shape
from diffdeblend.quantities.cmodel_problem import (
    STANDARD_SETTINGS,
    Problem,
    Settings,
    at_bound,
    make_problem,
)
from diffdeblend.quantities.cmodel_profiles import DE_VAUCOULEURS, EXPONENTIAL, Profile

# Fewer pixels than this say nothing of an ellipse.
_LEAST_PIXELS = 10


@dataclass(frozen=True)
class CModelSettings:
    """How a CModel is made.

    - `exponential`, `de_vaucouleurs`: the profiles. By default they go to infinity, so that fluxes
        are total ones; `LUX` and `LUV` of `cmodel_profiles` end at 4 and 8 half-light radii.
    - `fit`: how each is fitted.
    - `together`: fit both ellipses together in the end; else each is that which fits best alone.
    - `by_variance`: weigh pixels by their variance. By default all count alike: a variance that
        holds the source's own noise pulls fluxes down. Errors are right either way.
    """

    exponential: Profile = EXPONENTIAL
    de_vaucouleurs: Profile = DE_VAUCOULEURS
    fit: Settings = STANDARD_SETTINGS
    together: bool = True
    by_variance: bool = False


STANDARD_CMODEL = CModelSettings()


class ProfileFit(NamedTuple):
    """One of the two profiles.

    - `flux`: as if the source were this profile alone, in the unit of the image.
    - `radius`: half-light radius of the circle of the same area, in pixels.
    - `e1`, `e2`: conformal shear: its length is ln(a / b); positive `e1` is along x.
    - `xx`, `yy`, `xy`: the ellipse that holds half of the light: squares of half axes, px^2.
    - `chi2`: of it alone, of the used pixels, each with its weight in the fit.
    - `steps`, `converged`: of the fit.
    """

    flux: Float[Array, ""]
    radius: Float[Array, ""]
    e1: Float[Array, ""]
    e2: Float[Array, ""]
    xx: Float[Array, ""]
    yy: Float[Array, ""]
    xy: Float[Array, ""]
    chi2: Float[Array, ""]
    steps: Int[Array, ""]
    converged: Bool[Array, ""]


class CModel(NamedTuple):
    """The flux of a galaxy by CModel.

    - `flux`: of both profiles, in the unit of the image.
    - `flux_err`: its standard deviation, that of the ellipses included; `flux_err_held`: as if
        the ellipses were known, as the error of a PSF flux takes the PSF for known.
    - `frac_dev`: share of the de Vaucouleurs profile in the flux.
    - `chi2`, `n_pixels`: of the two together, and the pixels used.
    - `exponential`, `de_vaucouleurs`: the ellipses of the two, and what each would be alone.
    - `flag`: no number is to be trusted, for one of the reasons that follow; without pixels all
        are NaN.
    - `flag_no_pixels`: fewer than ten good pixels, none within a pixel or a PSF's sigma of the
        centre, or a centre that is not finite.
    - `flag_not_converged`: a fit that counts did not end; `flag_size`: its radius reached its
        upper bound.
    """

    flux: Float[Array, ""]
    flux_err: Float[Array, ""]
    flux_err_held: Float[Array, ""]
    frac_dev: Float[Array, ""]
    chi2: Float[Array, ""]
    n_pixels: Int[Array, ""]
    exponential: ProfileFit
    de_vaucouleurs: ProfileFit
    flag: Bool[Array, ""]
    flag_no_pixels: Bool[Array, ""]
    flag_not_converged: Bool[Array, ""]
    flag_size: Bool[Array, ""]


class ForcedCModel(NamedTuple):
    """The flux of given ellipses: fields as those of `CModel`."""

    flux: Float[Array, ""]
    flux_err: Float[Array, ""]
    frac_dev: Float[Array, ""]
    chi2: Float[Array, ""]
    n_pixels: Int[Array, ""]
    flag: Bool[Array, ""]


def cmodel(
    image: Float[Array, "y x"],
    variance: Float[Array, "y x"],
    good: Bool[Array, "y x"],
    psf: Float[Array, "k l"],
    x: Float[Array, ""],
    y: Float[Array, ""],
    settings: CModelSettings = STANDARD_CMODEL,
) -> CModel:
    """CModel of one source on its stamp. Pure; of many sources with `jax.vmap`.

    On CPU some tens together are fastest, as their images stay in the cache.

    - `image`, `variance`, `good`: the stamp, and which of its pixels are used.
    - `psf`: odd, centre in the middle pixel, its sum the light of a star.
    - `x`, `y`: the centre, in pixels of the stamp.

    **Raises:** `ValueError` for shapes that do not go together.
    """
    problem, n_pixels, empty = _prepared(image, variance, good, psf, x, y, settings)
    coarse = coarse_problem(problem, settings.fit)
    profiles = _profiles(settings)
    shear = jnp.zeros(2, problem.data.dtype)
    # Where both are fitted together after, that is only where to begin.
    alone = replace(settings.fit, fine_steps=0) if settings.together else settings.fit
    disc = fit_shape(settings.exponential, alone, problem, coarse, shear)
    # A spheroid lies as the disc does, to begin with.
    lie = jax.lax.stop_gradient(disc.numbers[1:])
    bulge = fit_shape(settings.de_vaucouleurs, alone, problem, coarse, lie)
    shapes = disc, bulge
    numbers = jnp.concatenate([disc.numbers, bulge.numbers])
    if settings.together:
        start = jax.lax.stop_gradient(numbers)
        pair = fit_joint(profiles, settings.fit, problem, coarse, start)
        numbers = pair.numbers
        shapes = tuple(pair._replace(numbers=n) for n in (numbers[:3], numbers[3:]))
    sums = make_sums(joint_images(profiles, problem, numbers, settings.fit), problem, variance)
    amplitudes = two_amplitudes(sums.gram[::4, ::4], sums.data[::4])
    held = _at_images(amplitudes.filters)
    if settings.together:
        response = joint_response(numbers, sums, amplitudes, problem, settings.fit)
    else:
        response = held
        for i, shape in enumerate(shapes):
            response = response - shape_response(
                i, shape.numbers, sums, amplitudes, problem, settings.fit
            )
    flux, of_bulge = amplitudes.values
    # A profile without a share in the flux may do as it likes.
    counts = jnp.stack([of_bulge != flux, of_bulge != 0])
    astray = jnp.any(~jnp.stack([shape.converged for shape in shapes]) & counts)
    bounds = jnp.stack([at_bound(problem, settings.fit.prior, s.numbers) for s in shapes])
    large = jnp.exp(jnp.stack([s.numbers[0] for s in shapes])) > problem.psf_sigma
    wide = jnp.any(bounds & large & counts)
    fits = [_profile_fit(i, shape, sums) for i, shape in enumerate(shapes)]
    unknown = jnp.where(empty, jnp.nan, 0).astype(flux.dtype)
    return CModel(
        flux + unknown,
        _error(response, sums) + unknown,
        _error(held, sums) + unknown,
        of_bulge / jnp.where(flux == 0, 1, flux) + unknown,
        chi2(sums, _at_images(amplitudes.values)) + unknown,
        n_pixels,
        fits[0],
        fits[1],
        empty | astray | wide | ~jnp.isfinite(flux),
        empty,
        astray,
        wide,
    )


def forced_cmodel(
    image: Float[Array, "y x"],
    variance: Float[Array, "y x"],
    good: Bool[Array, "y x"],
    psf: Float[Array, "k l"],
    x: Float[Array, ""],
    y: Float[Array, ""],
    exponential: Float[Array, "3"],
    de_vaucouleurs: Float[Array, "3"],
    frac_dev: Float[Array, ""] | None = None,
    settings: CModelSettings = STANDARD_CMODEL,
) -> ForcedCModel:
    """The flux of ellipses known from elsewhere, as from another band. Pure; `jax.vmap` for many.

    - `exponential`, `de_vaucouleurs`: (xx, yy, xy) of the two ellipses, as in `ProfileFit`.
    - `frac_dev`: the share of the second in the flux. Then the flux is linear in the data, so
        that the mean flux of sources too faint to see is right, and colours are those of one
        light. Without it both amplitudes are fitted, neither negative.
    - others as in `cmodel`.

    **Raises:** `ValueError` for shapes that do not go together.
    """
    problem, n_pixels, empty = _prepared(image, variance, good, psf, x, y, settings)
    one, two = (
        profile_image(
            profile, problem, shape_numbers(jnp.asarray(form, problem.data.dtype)), settings.fit
        )
        for profile, form in zip(_profiles(settings), (exponential, de_vaucouleurs), strict=True)
    )
    sums = make_sums(jnp.stack([one, two, two - one]), problem, variance)
    if frac_dev is None:
        (flux, of_bulge), filters, _ = two_amplitudes(sums.gram, sums.data)
        share = of_bulge / jnp.where(flux == 0, 1, flux)
    else:
        share = jnp.asarray(frac_dev, problem.data.dtype)
        mix = jnp.stack([jnp.ones_like(share), share])
        mass = mix @ sums.gram[::2, ::2] @ mix
        filters = mix / jnp.where(mass > 0, mass, 1)
        flux = filters @ sums.data[::2]
        of_bulge = flux * share
    filters = jnp.stack([filters[0], 0, filters[1]])
    model = jnp.stack([flux, 0, of_bulge])
    unknown = jnp.where(empty, jnp.nan, 0).astype(flux.dtype)
    return ForcedCModel(
        flux + unknown,
        _error(filters, sums) + unknown,
        share + unknown,
        chi2(sums, model) + unknown,
        n_pixels,
        empty | ~jnp.isfinite(flux),
    )


def _prepared(
    image: Array, variance: Array, good: Array, psf: Array, x: Array, y: Array, s: CModelSettings
) -> tuple[Problem, Array, Array]:
    """The problem, its number of pixels, and whether these are too few."""
    image, variance, good, psf, x, y = (jnp.asarray(v) for v in (image, variance, good, psf, x, y))
    if image.ndim != 2 or not image.shape == variance.shape == good.shape:
        raise ValueError(
            "`image`, `variance` and `good` need one shape (y, x); "
            f"got {image.shape}, {variance.shape} and {good.shape}."
        )
    if psf.ndim != 2 or 0 in (psf.shape[0] % 2, psf.shape[1] % 2):
        raise ValueError(f"`psf` needs shape (k, l), both odd; got {psf.shape}.")
    if x.ndim or y.ndim:
        raise ValueError(f"`x` and `y` are one number each; got {x.shape} and {y.shape}.")
    dtype = jnp.result_type(image.dtype, jnp.float32)
    known = jnp.isfinite(x) & jnp.isfinite(y)
    x, y = (
        jnp.where(known, v, n / 2).astype(dtype)
        for v, n in ((x, image.shape[1]), (y, image.shape[0]))
    )
    used = good & (variance > 0) & jnp.isfinite(variance) & jnp.isfinite(image)
    n_pixels = jnp.sum(used, dtype=jnp.int32)
    safe = jnp.where(used, variance, 1).astype(dtype)
    if not s.by_variance:
        level = jnp.sum(jnp.where(used, safe, 0)) / jnp.maximum(n_pixels, 1)
        safe = jnp.where(n_pixels > 0, level, 1)
    weight = jnp.where(used, 1 / safe, 0)
    problem = make_problem(
        jnp.where(used, image, 0).astype(dtype), weight, psf.astype(dtype), x, y, s.fit
    )
    rows, columns = (jnp.arange(n, dtype=dtype) for n in image.shape)
    reach = jnp.maximum(problem.psf_sigma, 1)
    near = (rows[:, None] - y) ** 2 + (columns - x) ** 2 <= reach**2
    return problem, n_pixels, ~known | (n_pixels < _LEAST_PIXELS) | ~jnp.any(used & near)


def _profiles(settings: CModelSettings) -> tuple[Profile, Profile]:
    return settings.exponential, settings.de_vaucouleurs


def _at_images(values: Float[Array, "2"]) -> Float[Array, "9"]:
    """Values of the disc and of the difference, the first and the last of the images."""
    return jnp.zeros(9, values.dtype).at[::8].set(values)


def _error(response: Array, sums: Sums) -> Array:
    squared = response @ sums.noise @ response
    positive = squared > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1)), 0)


def _profile_fit(slot: int, shape: Shape, sums: Sums) -> ProfileFit:
    row = 4 * slot
    mass = sums.gram[row, row]
    flux = sums.data[row] / jnp.where(mass > 0, mass, 1)
    xx, yy, xy = shape_matrix(shape.numbers)
    radius, e1, e2 = shape.numbers
    left = jnp.maximum(sums.power - flux * sums.data[row], 0)
    return ProfileFit(flux, jnp.exp(radius), e1, e2, xx, yy, xy, left, shape.steps, shape.converged)
