"""Which model each source asks for, by the Bayesian information criterion."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from diffdeblend.components import AnySource, Kind, Stack, any_stack
from diffdeblend.deblend.start import BULGE_SHEAR
from diffdeblend.fit import Fit
from diffdeblend.fit.levenberg_marquardt import LevenbergMarquardt, levenberg_marquardt
from diffdeblend.fit.objective import make_problem, model_image
from diffdeblend.fit.prior import ShapePrior
from diffdeblend.fit.unknowns import free_numbers, scene_of
from diffdeblend.grid import FIT, Quality
from diffdeblend.psf import AbstractPSF
from diffdeblend.scene import Scene, render_each


def n_parameters(kind: Kind, n_bands: int) -> int:
    """Free numbers of a source of a kind: shapes, and a flux a part and band."""
    return {
        Kind.POINT: 2 + n_bands,
        Kind.SERSIC: 6 + n_bands,
        Kind.BULGE_DISC: 7 + 2 * n_bands,
        Kind.MULTI_GAUSSIAN: 5 + AnySource.parts * n_bands,
    }[kind]


def worth_trying(found: Fit) -> Bool[np.ndarray, "source kind"]:
    """Which kinds can win at all, given a fit with one stack of `AnySource`.

    More parameters have to buy more than their price in BIC, which a faint source cannot pay: a
    model that is wrong by a seventh of the light costs (snr / 7)^2 in chi2. What is seen to be wide
    is no point.
    """
    stack = found.scene.sources[0]
    size = stack.size
    flux = np.asarray(stack.members.flux, float).reshape(size, -1, found.scene.n_bands).sum(axis=1)
    sigma = np.asarray(found.flux_error, float)
    with np.errstate(divide="ignore", invalid="ignore"):
        snr = np.sqrt(np.nansum(np.where(sigma > 0, flux / sigma, 0) ** 2, axis=1))
    members = stack.members
    assert isinstance(members, AnySource)
    narrow = (np.asarray(members.radius) < 1.5) | (np.asarray(members.kind) == Kind.POINT)
    tried = np.ones((size, len(Kind)), dtype=bool)
    tried[:, Kind.POINT] = narrow
    n_bands, used = found.scene.n_bands, max(int(found.n_pixels.sum()), 2)
    for kind in (Kind.BULGE_DISC, Kind.MULTI_GAUSSIAN):
        extra = n_parameters(kind, n_bands) - n_parameters(Kind.SERSIC, n_bands)
        tried[:, kind] = (snr / 7) ** 2 > extra * np.log(used)
    tried[np.arange(size), np.asarray(members.kind)] = True
    return tried


def choose_kinds(
    scene: Scene,
    data: Float[Array, "band y x"],
    weight: Float[Array, "band y x"],
    psf: AbstractPSF,
    prior: ShapePrior,
    tried: Bool[np.ndarray, "source kind"],
    quality: Quality = FIT,
) -> tuple[Int[np.ndarray, "source"], Scene]:
    """The kind of least BIC for each source, the others held, and a scene to start from.

    Every source is fitted alone, as each of the four kinds, to the data minus all other sources,
    in one program. `scene` holds one stack of `AnySource`, already fitted under `prior`; `tried`
    says which kinds to try for each place, see `worth_trying`.

    Returns the kinds, padding included, and `scene` with each source as its best trial left it.
    """
    values, trials = _trials(scene, data, weight, psf, prior, jnp.asarray(tried), quality)
    # In units of the noise, so that all bands speak.
    noise = np.sqrt(np.asarray(jnp.mean(weight, axis=(1, 2))))
    flux = np.asarray(trials.flux).sum(axis=2) * noise
    # What eats a neighbour's light is no model of a source.
    negative = flux.min(axis=2) < -0.05 * np.abs(flux).max(axis=2)
    n_bands = data.shape[0]
    used = max(int(jnp.sum(weight > 0)), 2)
    cost = np.array([n_parameters(kind, n_bands) for kind in Kind]) * np.log(used)
    criterion = 2 * np.asarray(values, dtype=float) + cost
    criterion = np.where(np.isfinite(criterion) & tried, criterion, np.inf)
    criterion = np.where(negative & ~negative.all(axis=1, keepdims=True), np.inf, criterion)
    best = np.argmin(criterion, axis=1)
    stack = scene.sources[0]
    picked = jax.tree.map(lambda leaf: leaf[np.arange(stack.size), best], trials)
    return best, Scene(
        [any_stack(Stack(picked, stack.active, stack.rank))], scene.background, scene.dx, scene.dy
    )


@eqx.filter_jit
def _trials(
    scene: Scene,
    data: Array,
    weight: Array,
    psf: AbstractPSF,
    prior: ShapePrior,
    tried: Array,
    quality: Quality,
) -> tuple[Float[Array, "source kind"], AnySource]:
    """Objective and fitted source for each source as each kind."""
    stack = scene.sources[0]
    shape = (data.shape[1], data.shape[2])
    alone = render_each(scene, psf, shape, quality=quality)[0]
    # Every second pixel will do for a matrix that only sets the pace.
    coarse = replace(quality, matrix=min(quality.matrix, 0.5))
    problem = make_problem(data, weight, psf, free_numbers(scene, None), None, coarse)
    left = data - model_image(scene, problem)

    def method_of(kind: Array) -> LevenbergMarquardt:
        # Only bright sources are tried as more than one component. Under these the weights are
        # steep, and by modes such a fit takes a hundred steps.
        fast = jnp.where(kind >= Kind.BULGE_DISC, 0, 15)
        return LevenbergMarquardt(max_steps=15, tolerance=0.5, fast_steps=fast)

    def one(
        source: tuple[AnySource, Array, Array, Array, Array, Array],
    ) -> tuple[Array, AnySource]:
        member, active, rank, own, centre, wanted = source

        def as_kind(kind: Array) -> tuple[Array, AnySource]:
            # A trial without an active source ends at once.
            present = (active & wanted[kind])[None]
            members = jax.tree.map(lambda leaf: leaf[None], _as_kind(member, kind))
            trial = Scene([Stack(members, present, rank[None])], dx=scene.dx, dy=scene.dy)
            task = eqx.tree_at(
                lambda p: (p.data, p.free, p.prior),
                problem,
                (left + own, free_numbers(trial, None), ShapePrior((centre[None],))),
                is_leaf=lambda leaf: leaf is None,
            )
            found = levenberg_marquardt(method_of(kind), trial, task)
            fitted = scene_of(found.unknowns, trial).sources[0].members
            return found.value, jax.tree.map(lambda leaf: leaf[0], fitted)

        return jax.lax.map(as_kind, jnp.arange(len(Kind)))

    return jax.lax.map(
        one, (stack.members, stack.active, stack.rank, alone, prior.centre[0], tried)
    )


def _as_kind(member: AnySource, kind: Array) -> AnySource:
    """A start for a source as another kind: dark, with the sizes that its Sersic fit suggests."""
    # A concentrated galaxy hides its disc: a bulge of n = 4 leaves a disc larger than the whole.
    disc = member.radius * jnp.clip(1 + 0.25 * (member.index - 1), 0.8, 1.8)
    radius = jnp.where(kind == Kind.BULGE_DISC, disc, member.radius)
    return eqx.tree_at(
        lambda m: (m.kind, m.radius, m.flux, m.radius_ratio, m.shear_ratio),
        member,
        (
            kind.astype(member.kind.dtype),
            radius,
            jnp.zeros_like(member.flux),
            jnp.full_like(member.radius, 0.4),
            jnp.full_like(member.radius, BULGE_SHEAR),
        ),
    )
