"""Flux ratio and registration of two images from stamps of them, by robust least squares."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float

from diffdeblend.subtract.filters import EPSILON, power_of, transfer_plane
from diffdeblend.widths import equivalent_sigma

# Beyond that many standard deviations a pixel counts less, a star much less.
_HUBER, _FAR = 2.5, 2.0
# What no set of stars is better than: of beta, relative, and of a position, in pixels.
_LEAST_SCATTER = 5e-4
_ROUNDS, _STEPS = 3, 4
# A step of so small a share of its error is the last.
_SETTLED = 0.03


class Stamps(eqx.Module):
    """Stamps of two images around the same places; rows that fill up have `use` of 0.

    - `new`, `reference`, and their variances: shape `(place, side, side)`.
    - `known`: pixels of the window that both images know, `(place, window, window)`.
    - `psf_new`, `psf_reference`: at these places, `(place, h, w)`.
    - `terms`: of the registration's polynomials at these places, `(place, term)`.
    - `use`: 1 or 0, shape `(place,)`.
    - `sigma_new`, `sigma_reference`: noise of empty sky.
    """

    new: Float[Array, "place side side"]
    reference: Float[Array, "place side side"]
    variance_new: Float[Array, "place side side"]
    variance_reference: Float[Array, "place side side"]
    known: Bool[Array, "place window window"]
    psf_new: Float[Array, "place h w"]
    psf_reference: Float[Array, "place g v"]
    terms: Float[Array, "place term"]
    use: Float[Array, "place"]
    sigma_new: Float[Array, ""]
    sigma_reference: Float[Array, ""]


class Registration(eqx.Module):
    """Where a fit stands.

    - `beta`: flux in the new image over that in the reference.
    - `x`, `y`: coefficients of the shift, shape `(term,)`, pixels.
    - `scatter_beta`, `scatter_position`: by how much stars differ from the fit beyond their noise,
        relative and in pixels.
    """

    beta: Float[Array, ""]
    x: Float[Array, "term"]
    y: Float[Array, "term"]
    scatter_beta: Float[Array, ""]
    scatter_position: Float[Array, ""]


class Outcome(eqx.Module):
    """What a fit found.

    - `state`: the fit.
    - `covariance`: of beta and the coefficients of x and of y, in this order.
    - `change`: length of the last step in units of its error.
    - `each`: of every star, the deviation of log beta, x and y from the fit, shape `(place, 3)`.
    - `errors`: their standard deviations from the noise.
    - `n_used`: how many stars count.
    - `scatter_width`: by how much the PSFs' widths are off from star to star, beyond the noise, in
        units of the width.
    """

    state: Registration
    covariance: Float[Array, "k k"]
    change: Float[Array, ""]
    each: Float[Array, "place 3"]
    errors: Float[Array, "place 3"]
    n_used: Float[Array, ""]
    scatter_width: Float[Array, ""]


@eqx.filter_jit
def fit_stamps(stamps: Stamps, start: Registration, psf_error: float | Array) -> Outcome:
    """The registration that leaves least in the proper difference of all stamps.

    Gauss-Newton: each stamp gives its own step of (log beta, x, y), with the level of its
    background free; the common step is their mean, weighted by the noise of each and the scatter
    among them, so that a few bright stars with a PSF that is slightly wrong do not decide alone.

    - `psf_error`: of the PSFs, relative: light that stays for that reason alone.

    ??? cite
        ZOGY, eqs. 37 to 39: the same residual. Random effects: DerSimonian & Laird (1986).
    """
    planes = _planes(stamps)

    # Carried: what `Outcome` holds, the steps of this round, and the rounds.
    def one_round(carried):
        outcome, _, rounds = carried
        noise = _noise(stamps, planes, outcome[0], psf_error)
        outcome, steps = jax.lax.while_loop(
            lambda c: (c[1] < _STEPS) & ((c[1] == 0) | (c[0][2] > _SETTLED)),
            lambda c: (_step(stamps, planes, noise, c[0][0]), c[1] + 1),
            (outcome, jnp.int32(0)),
        )
        return outcome, steps, rounds + 1

    n, k = len(stamps.use), 1 + 2 * stamps.terms.shape[1]
    dtype = stamps.new.dtype
    nothing = (
        jnp.zeros((k, k), dtype),
        jnp.zeros((), dtype),
        jnp.zeros((n, 3), dtype),
        jnp.zeros((n, 3), dtype),
        jnp.zeros((), dtype),
    )
    # A round that begins with a small step has nothing more to say.
    outcome, _, _ = jax.lax.while_loop(
        lambda c: (c[2] < _ROUNDS) & (c[1] != 1),
        one_round,
        ((start, *nothing), jnp.int32(0), jnp.int32(0)),
    )
    state = outcome[0]
    noise = _noise(stamps, planes, state, psf_error)
    return Outcome(*outcome, _width_scatter(stamps, planes, noise, state, *outcome[3:5]))


class _Planes(eqx.Module):
    new: Complex[Array, "place ky kx"]
    reference: Complex[Array, "place ky kx"]
    psf_new: Complex[Array, "place ky kx"]
    psf_reference: Complex[Array, "place ky kx"]


def _planes(stamps: Stamps) -> _Planes:
    shape = stamps.new.shape[1], stamps.new.shape[2]
    # In units of the noise: see `filters_of_transfers`.
    return _Planes(
        jnp.fft.rfft2(stamps.new / stamps.sigma_new),
        jnp.fft.rfft2(stamps.reference / stamps.sigma_reference),
        *(
            jax.vmap(lambda stamp: transfer_plane(stamp, shape))(psf)
            for psf in (stamps.psf_new, stamps.psf_reference)
        ),
    )


def _whiten(planes: _Planes, scaled: Array) -> Array:
    power = power_of(planes.psf_reference) + scaled**2 * power_of(planes.psf_new)
    return jnp.reciprocal(jnp.sqrt(power + EPSILON * (1 + scaled**2)))


def _noise(
    stamps: Stamps, planes: _Planes, state: Registration, psf_error: float | Array
) -> Float[Array, "place window window"]:
    """Variance of the difference in the windows, with the light that a wrong PSF leaves."""
    shape = stamps.new.shape[1], stamps.new.shape[2]
    scaled = state.beta * stamps.sigma_reference / stamps.sigma_new
    whiten = _whiten(planes, scaled)
    total = 0
    for variance, sigma, filtered in (
        (stamps.variance_new, stamps.sigma_new, whiten * planes.psf_reference),
        (stamps.variance_reference, stamps.sigma_reference, scaled * whiten * planes.psf_new),
    ):
        squared = jnp.fft.rfft2(jnp.fft.irfft2(filtered, s=shape) ** 2)
        total += squared * jnp.fft.rfft2(variance / sigma**2)
    light = jnp.fft.irfft2(whiten * planes.psf_reference * planes.new, s=shape)
    noise = jnp.maximum(_window(jnp.fft.irfft2(total, s=shape), stamps), 0.1)
    return noise + (psf_error * _window(light, stamps)) ** 2


def _step(stamps: Stamps, planes: _Planes, noise: Array, state: Registration):
    """One common Gauss-Newton step; what `Outcome` holds."""
    normal, gradient = _normal_equations(stamps, planes, noise, state)
    identity = jnp.eye(3, dtype=normal.dtype)
    # Stars without light say nothing, but must not be singular.
    scale = jnp.sqrt(jnp.maximum(jnp.diagonal(normal, axis1=1, axis2=2), 1e-6))
    inverse = _inverses(normal / (scale[:, :, None] * scale[:, None]) + 1e-5 * identity)
    inverse = inverse / (scale[:, :, None] * scale[:, None])
    own = jnp.einsum("nij,nj->ni", inverse, gradient)
    spread = jnp.stack([state.scatter_beta, state.scatter_position, state.scatter_position]) ** 2
    weight = _inverses(inverse + jnp.diag(spread))
    far = jnp.einsum("ni,nij,nj->n", own, weight, own) / 3
    use = stamps.use / (1 + far / _FAR**2) ** 2
    weight = use[:, None, None] * weight

    design = _design(stamps.terms)
    matrix = jnp.einsum("nia,nij,njb->ab", design, weight, design)
    right = jnp.einsum("nia,nij,nj->a", design, weight, own)
    size = jnp.sqrt(jnp.maximum(jnp.diagonal(matrix), 1e-20))
    conditioned = matrix / (size[:, None] * size) + 1e-6 * jnp.eye(len(size), dtype=size.dtype)
    covariance = jnp.linalg.inv(conditioned) / (size[:, None] * size)
    step = covariance @ right
    terms = stamps.terms.shape[1]
    # A step of half a factor or a pixel at most: beyond that the slopes do not hold.
    farthest = jnp.max(jnp.abs(design[:, 1:] @ step))
    longest = jnp.maximum(jnp.abs(step[0]) / 0.4, farthest)
    step = step / jnp.maximum(1, longest)

    left = own - jnp.einsum("nia,a->ni", design, step)
    errors = jnp.sqrt(jnp.diagonal(inverse, axis1=1, axis2=2))
    scatter_beta = _scatter(left[:, :1], errors[:, :1], state.scatter_beta, use)
    scatter_position = _scatter(left[:, 1:], errors[:, 1:], state.scatter_position, use)
    state = Registration(
        state.beta * jnp.exp(step[0]),
        state.x + step[1 : 1 + terms],
        state.y + step[1 + terms :],
        scatter_beta,
        scatter_position,
    )
    change = jnp.max(jnp.abs(step) / jnp.sqrt(jnp.diagonal(covariance)))
    return state, covariance, change, left, errors, jnp.sum(use)


def _inverses(matrices: Float[Array, "n 3 3"]) -> Float[Array, "n 3 3"]:
    """Inverses of symmetric positive matrices by cofactors: those of linalg compile for seconds."""
    size = jnp.sqrt(jnp.diagonal(matrices, axis1=1, axis2=2))
    scaled = matrices / (size[:, :, None] * size[:, None])
    rows = [scaled[:, k] for k in range(3)]
    cofactors = jnp.stack([jnp.cross(rows[(k + 1) % 3], rows[(k + 2) % 3]) for k in range(3)], 1)
    determinant = jnp.sum(rows[0] * cofactors[:, 0], axis=1)
    return cofactors / (determinant[:, None, None] * size[:, :, None] * size[:, None])


def _design(terms: Float[Array, "place term"]) -> Float[Array, "place 3 k"]:
    n, t = terms.shape
    zero, one = jnp.zeros((n, t), terms.dtype), jnp.ones((n, 1), terms.dtype)
    no = jnp.zeros((n, 1), terms.dtype)
    rows = [
        jnp.concatenate(row, axis=1)
        for row in ((one, zero, zero), (no, terms, zero), (no, zero, terms))
    ]
    return jnp.stack(rows, axis=1)


def _normal_equations(
    stamps: Stamps, planes: _Planes, noise: Array, state: Registration, width: Array | None = None
) -> tuple[Float[Array, "place p p"], Float[Array, "place p"]]:
    """Of each stamp for (log beta, x, y); the level of the background is projected out.

    - `width`: of the PSF; with it the fourth unknown is the share by which that is off.
    """
    shape = stamps.new.shape[1], stamps.new.shape[2]
    scaled = state.beta * stamps.sigma_reference / stamps.sigma_new
    whiten = _whiten(planes, scaled)
    ky = jnp.asarray(2 * np.pi * np.fft.fftfreq(shape[0]), whiten.dtype)[:, None]
    kx = jnp.asarray(2 * np.pi * np.fft.rfftfreq(shape[1]), whiten.dtype)
    x, y = (stamps.terms @ c for c in (state.x, state.y))
    # One axis after the other: a cosine of every mode would take longer than the transforms.
    moved = planes.reference * _wave(x, kx) * _wave(y, ky)
    reference = scaled * whiten * planes.psf_new * moved
    difference = whiten * planes.psf_reference * planes.new - reference
    # The whitening depends on beta, too: without it, noise of R would draw beta down.
    share = scaled**2 * power_of(planes.psf_new) * whiten**2
    by_beta = -reference - share * difference
    unknown = [by_beta, 1j * kx * reference, 1j * ky * reference]
    if width is not None:
        # As in `systematic_variance`: a wider Gaussian is one plus its Laplacian.
        bend = 2 * width**2 * (jnp.cos(kx) + jnp.cos(ky) - 2)
        unknown.append(bend * _share_of_light(planes, shape) * reference)
    residual, *columns = (
        _window(jnp.fft.irfft2(plane, s=shape), stamps) for plane in (difference, *unknown)
    )
    far = jnp.abs(residual) / jnp.sqrt(noise)
    weight = jnp.where(stamps.known, jnp.minimum(1, _HUBER / jnp.maximum(far, 1e-3)) / noise, 0)
    total = jnp.maximum(jnp.sum(weight, axis=(1, 2)), 1e-20)

    def free(image: Array) -> Array:
        return image - (jnp.sum(weight * image, axis=(1, 2)) / total)[:, None, None]

    residual, columns = free(residual), [free(column) for column in columns]
    weighted = [weight * column for column in columns]
    normal = jnp.stack(
        [jnp.stack([jnp.sum(a * b, axis=(1, 2)) for b in columns], axis=-1) for a in weighted],
        axis=-2,
    )
    gradient = jnp.stack([-jnp.sum(a * residual, axis=(1, 2)) for a in weighted], axis=-1)
    return normal, gradient


def _wave(shift: Float[Array, "place"], k: Float[Array, "*k"]) -> Complex[Array, "place *k"]:
    angle = shift[:, None, None] * k
    return jax.lax.complex(jnp.cos(angle), -jnp.sin(angle))


def _share_of_light(planes: _Planes, shape: tuple[int, int]) -> Float[Array, "place ky kx"]:
    """Of the reference's power at each frequency, for a star as bright as its peak (Wiener).

    A second derivative of the image as it is would be that of its noise, which the difference has
    in it, too: faint stars would all seem too narrow.
    """
    power = power_of(planes.psf_reference)
    matched = jnp.fft.irfft2(jnp.conj(planes.psf_reference) * planes.reference, s=shape)
    one = jnp.fft.irfft2(power.astype(matched.dtype) + 0j, s=shape)[:, :1, :1]
    flux = jnp.max(matched, axis=(1, 2), keepdims=True) / one
    light = flux**2 * power
    return light / (light + shape[0] * shape[1])


def _width_scatter(
    stamps: Stamps,
    planes: _Planes,
    noise: Array,
    state: Registration,
    each: Float[Array, "place 3"],
    errors: Float[Array, "place 3"],
) -> Float[Array, ""]:
    """How far the width of the PSFs is off, with flux ratios and shifts that scatter as they do."""
    width = equivalent_sigma(jnp.mean(stamps.psf_reference, axis=0))
    normal, gradient = _normal_equations(stamps, planes, noise, state, width)
    # Free ones would trade light for width; one that varies must not pass for a wider PSF.
    spread = jnp.stack([state.scatter_beta, state.scatter_position, state.scatter_position])
    known = spread**2 + jnp.maximum(each**2 - errors**2, 0)
    normal = normal.at[:, [0, 1, 2], [0, 1, 2]].add(1 / known)
    scale = jnp.sqrt(jnp.maximum(jnp.diagonal(normal, axis1=1, axis2=2), 1e-6))
    normal = normal / (scale[:, :, None] * scale[:, None])
    gradient = gradient / scale
    inverse = _inverses(normal[:, :3, :3] + 1e-5 * jnp.eye(3, dtype=normal.dtype))
    across = jnp.einsum("nij,nj->ni", inverse, normal[:, :3, 3])
    told = jnp.maximum(normal[:, 3, 3] - jnp.sum(across * normal[:, :3, 3], axis=1), 1e-6)
    own = (gradient[:, 3] - jnp.sum(across * gradient[:, :3], axis=1)) / told / scale[:, 3]
    own_error = 1 / jnp.sqrt(told) / scale[:, 3]
    return jax.lax.fori_loop(
        0,
        6,
        lambda _, now: _scatter(own[:, None], own_error[:, None], now, stamps.use),
        jnp.full((), 0.01, own.dtype),
    )


def _scatter(left: Array, errors: Array, now: Array, use: Array) -> Array:
    """Standard deviation of deviations beyond that of their errors."""
    variance = errors**2 + now**2
    weight = use[:, None] / variance**2
    # Of a normal variable, 0.92 of its variance is left when it is clipped at two sigmas.
    clipped = jnp.minimum(left**2, 4 * variance) / 0.92
    mean = jnp.sum(weight * (clipped - errors**2)) / jnp.maximum(jnp.sum(weight), 1e-20)
    return jnp.sqrt(jnp.maximum(mean, _LEAST_SCATTER**2))


def _window(images: Array, stamps: Stamps) -> Array:
    start = (images.shape[-1] - stamps.known.shape[-1]) // 2
    end = start + stamps.known.shape[-1]
    return images[..., start:end, start:end]
