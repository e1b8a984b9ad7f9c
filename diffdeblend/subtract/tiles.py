r"""Proper subtraction with PSFs that vary over the image: filters that are planes within tiles.

With one pair of filters a tile of 256 pixels, a star of 3e5 electrons far from its middle leaves 10
sigmas. Here the filters of a tile are planes of the place, $q(x, y) = q_0 + u\, q_u + v\, q_v$,
from the PSFs in the middles of its four sides, u and v from -1/2 to 1/2: three inverse transforms
instead of one, and an error of second order, 0.7 sigma (`experiments/subtraction/varying.md`). The
tiles have margins, so that nothing wraps around.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from diffdeblend.fourier import EXACT, Pair
from diffdeblend.subtract.filters import (
    EPSILON,
    centred_stamp,
    power_of,
    shift_plane,
    transfer_plane,
)
from diffdeblend.subtract.maps import ImagePair, Maps, closed_maps
from diffdeblend.subtract.nodes import NodePSF, NodeScales, node_scales
from diffdeblend.subtract.padding import mirrored_noise
from diffdeblend.subtract.tiling import Tiling
from diffdeblend.subtract.variance import systematic_variance
from diffdeblend.widths import equivalent_sigma

# A filter that is a plane of the place: in the middle of the tile, and what it changes by over the
# tile along x and y; each a pair (real, imaginary) of planes (ky, kx).
Terms = tuple[Pair, Pair, Pair]


def subtract_tiles(
    pair: ImagePair,
    psf_new: NodePSF,
    psf_reference: NodePSF,
    *,
    tiling: Tiling,
    systematics: bool = True,
    difference: bool = True,
    at_once: int = 1,
) -> Maps:
    """D, score, significance and flux of a pair of images with these PSFs. Of one band.

    - `pair`: shapes as `tiling`; a shift must be well within the margins of the tiles. What a field
        of shifts has beside it, take off the reference with `warp`.
    - `psf_new`, `psf_reference`: from `node_psfs`.
    - `tiling`: from `tiling_for`; static.
    - `systematics`: whether `pair.noise` enters; False saves two transforms if all of it is zero.
    - `difference`: whether D is wanted; False leaves zeros there and saves three transforms.
    - `at_once`: tiles that are computed together; static. One is best on a CPU, where a tile stays
        in the cache; all of them on a GPU.
    """
    full = tiling.full
    settings = pair.sigma_new, pair.sigma_reference, pair.beta
    scales = node_scales(psf_new, psf_reference, *settings, tiling)
    bases = tuple(_planes_of(psf.images, full) for psf in (psf_new, psf_reference))
    shift = shift_plane(pair.dx, pair.dy, full)
    names = ["new", "reference", "variance_new", "variance_reference"]
    masked = pair.missing_new is not None and pair.missing_reference is not None
    names += ["missing_new", "missing_reference"] if masked else []
    padded = [tiling.pad(jnp.asarray(getattr(pair, name), pair.new.dtype)) for name in names]
    width = equivalent_sigma(psf_reference.middle)

    def of_tile(place: Array) -> tuple[Array, ...]:
        row, column = place[0], place[1]
        hats = [jnp.fft.rfft2(tiling.tile(image, row, column)) for image in padded]
        moved = [hat * shift if k % 2 else hat for k, hat in enumerate(hats)]
        # The middles of the left, right, upper and lower side.
        nodes = 2 * row + jnp.asarray([1, 1, 0, 2]), 2 * column + jnp.asarray([0, 2, 1, 1])
        transfers = [
            _sums(psf.weights[nodes], basis)
            for psf, basis in zip((psf_new, psf_reference), bases, strict=True)
        ]
        whitening, matched = _filters(transfers[0], transfers[1], *settings)
        terms = _terms(matched)
        score = _varying(terms, moved[0], moved[1], tiling)
        image = jnp.zeros_like(score)
        if difference:
            image = _varying(_terms(whitening), moved[0], moved[1], tiling)
        squares = [transfer_plane(stamps[row, column], full) for stamps in scales.squares]
        power = moved[2] * squares[0] + moved[3] * squares[1]
        variance = tiling.cores(jnp.fft.irfft2(power, s=full))
        kept = jnp.ones_like(score)
        if masked:
            for hat, stamps in zip(moved[4:], scales.seen, strict=True):
                plane = jnp.conj(transfer_plane(stamps[row, column], full)) * hat
                share = tiling.cores(jnp.fft.irfft2(plane, s=full))
                kept *= 1 - jnp.clip(share, 0, 1)
        extra = jnp.zeros_like(score)
        if systematics:
            wide_new, wide_reference = (
                tiling.cores(jnp.fft.irfft2(_times(hat, term), s=full), 1)
                for hat, term in zip(moved[:2], (terms[0][0], terms[1][0]), strict=True)
            )
            extra = systematic_variance(wide_new, wide_reference, pair.noise, width)
        return image, score, variance, kept, extra

    rows, columns = np.indices(tiling.counts).reshape(2, -1)
    places = jnp.asarray(np.stack([rows, columns], axis=1))
    tiles = jax.lax.map(of_tile, places, batch_size=at_once if at_once > 1 else None)
    return _maps([tiling.joined(cores) for cores in tiles], scales, tiling)


def _maps(joined: list[Array], scales: NodeScales, tiling: Tiling) -> Maps:
    D, S, relative, kept, extra = joined
    # A kernel of the middle of a tile has the shape of its place, and `empty` its height.
    mirrored = mirrored_noise(power_of(scales.middle.psf), scales.small, tiling.shape)
    size = scales.squares[0].shape[-1]
    psf = centred_stamp(scales.middle.psf, scales.small, size)
    return closed_maps(
        D,
        S,
        information=scales.F_S,
        variance=relative * scales.empty * mirrored,
        systematic=extra,
        lost=1 - kept,
        psf=psf / jnp.sum(psf),
        F_D=scales.middle.flux_scale,
        F_S=scales.middle.score_scale,
    )


def _planes_of(images: Float[Array, "basis h w"], shape: tuple[int, int]) -> Pair:
    """Transfer planes of the images of a basis, `(basis, ky, kx)`."""

    def parts(image: Array) -> Pair:
        plane = transfer_plane(image, shape)
        return jnp.real(plane), jnp.imag(plane)

    # A loop: it is compiled once, not for each image.
    return jax.lax.optimization_barrier(jax.lax.map(parts, images))


def _sums(weights: Float[Array, "node basis"], planes: Pair) -> Pair:
    """Transfer planes at nodes, `(node, ky, kx)`."""
    re, im = (jnp.tensordot(weights, part, axes=1, precision=EXACT) for part in planes)
    return re, im


def _filters(
    new: Pair, reference: Pair, sigma_new: Array, sigma_reference: Array, beta: Array
) -> tuple[tuple[Pair, Pair], tuple[Pair, Pair]]:
    """For D and for the score: what acts on N and on R, as `filters_of_transfers` makes them."""
    scaled = beta * sigma_reference / sigma_new
    floor = EPSILON * (1 + scaled**2)

    def power(a: Array, b: Array, c: Array, d: Array) -> Array:
        return c * c + d * d + scaled**2 * (a * a + b * b) + floor

    def whiten(a: Array, b: Array, c: Array, d: Array) -> Array:
        return jnp.reciprocal(jnp.sqrt(power(a, b, c, d))) / sigma_new

    def share(a: Array, b: Array, c: Array, d: Array) -> Array:
        return (beta / sigma_new**2) * (c * c + d * d) / power(a, b, c, d)

    def other(a: Array, b: Array, c: Array, d: Array) -> Array:
        of_new = beta * scaled / (sigma_new * sigma_reference)
        return of_new * (a * a + b * b) / power(a, b, c, d)

    # Real and imaginary parts of both PSFs, and what they are multiplied with.
    white, for_new, for_reference = _apart((whiten, share, other), *new, *reference)
    products = _apart(
        (
            lambda w, n, r, a, b, c, d: w * c,
            lambda w, n, r, a, b, c, d: w * d,
            lambda w, n, r, a, b, c, d: beta * w * a,
            lambda w, n, r, a, b, c, d: beta * w * b,
            lambda w, n, r, a, b, c, d: n * a,
            lambda w, n, r, a, b, c, d: -n * b,
            lambda w, n, r, a, b, c, d: r * c,
            lambda w, n, r, a, b, c, d: -r * d,
        ),
        *(white, for_new, for_reference, *new, *reference),
    )
    pairs = [(products[k], products[k + 1]) for k in range(0, 8, 2)]
    return (pairs[0], pairs[1]), (pairs[2], pairs[3])


def _apart(functions: tuple[Callable[..., Array], ...], *values: Array) -> list[Array]:
    """Each function of the values, one after the other.

    A loop that XLA fuses with several outputs is scalar code on CPU, ten times slower.
    """
    made = []
    for function in functions:
        value, values = jax.lax.optimization_barrier((function(*values), values))
        made.append(value)
    return made


def _terms(filters: tuple[Pair, Pair]) -> tuple[Terms, Terms]:
    """Planes of the place from the filters in the middles of the four sides."""

    def of(part: Array) -> list[Array]:
        return _apart(
            (
                lambda p: (p[0] + p[1] + p[2] + p[3]) / 4,
                lambda p: p[1] - p[0],
                lambda p: p[3] - p[2],
            ),
            part,
        )

    new, reference = (tuple(zip(of(pair[0]), of(pair[1]), strict=True)) for pair in filters)
    return (new[0], new[1], new[2]), (reference[0], reference[1], reference[2])


def _times(hat: Complex[Array, "ky kx"], pair: Pair) -> Complex[Array, "ky kx"]:
    return hat * jax.lax.complex(*pair)


def _varying(
    terms: tuple[Terms, Terms], new: Array, reference: Array, tiling: Tiling
) -> Float[Array, "height width"]:
    """The difference of the images through filters that are planes of the place, in the core."""
    cores = [
        tiling.cores(
            jnp.fft.irfft2(_times(new, for_new) - _times(reference, for_reference), s=tiling.full)
        )
        for for_new, for_reference in zip(*terms, strict=True)
    ]
    v, u = (
        jnp.asarray((np.arange(size) + 0.5) / size - 0.5, cores[0].dtype) for size in tiling.core
    )
    return cores[0] + u * cores[1] + v[:, None] * cores[2]
