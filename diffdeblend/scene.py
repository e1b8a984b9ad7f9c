"""What is in an image, and how it looks through the PSF."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffdeblend.background import AbstractBackground
from diffdeblend.components import AbstractComponent, AnySource, Stack, stack_components
from diffdeblend.components.stack import identity
from diffdeblend.exposure import Exposure
from diffdeblend.fourier import EXACT, Pair, multiply, shift, to_image
from diffdeblend.grid import STANDARD, Grid, Modes, Quality, make_grid
from diffdeblend.parameters import as_float
from diffdeblend.psf import AbstractPSF
from diffdeblend.psf.abstract import transfer
from diffdeblend.wings import spread_wings, wrapped_wings


class Scene(eqx.Module):
    """Sources on a sky: a pytree of physical values, without data, PSF or optimiser.

    - `sources`: stacks, one for each kind of component. A list of components is sorted into them.
    - `background`: the sky, or None for none.
    - `dx`, `dy`: small shift of each band, in pixels, shape `(band,)`; bands are never registered
        perfectly. Zero unless given.

    **Raises:** `ValueError` for no sources, or bands that disagree.
    """

    sources: tuple[Stack, ...]
    background: AbstractBackground | None
    dx: Float[Array, "band"]
    dy: Float[Array, "band"]

    def __init__(
        self,
        sources: Sequence[AbstractComponent | Stack],
        background: AbstractBackground | None = None,
        dx: Float[Array, "band"] | None = None,
        dy: Float[Array, "band"] | None = None,
    ):
        self.sources = _stacked(sources)
        n_bands = {int(stack.members.flux.shape[-1]) for stack in self.sources}
        if background is not None:
            n_bands.add(int(background.coefficients.shape[0]))
        if len(n_bands) > 1:
            raise ValueError(
                f"`sources` and `background` need one number of bands; got {sorted(n_bands)}."
            )
        zero = jnp.zeros(n_bands.pop(), dtype=self.sources[0].members.flux.dtype)
        self.background = background
        self.dx = zero if dx is None else as_float(dx)
        self.dy = zero if dy is None else as_float(dy)
        for name, offset in (("dx", self.dx), ("dy", self.dy)):
            if offset.shape != zero.shape:
                raise ValueError(
                    f"`{name}` needs one number per band, shape {zero.shape}; got {offset.shape}."
                )

    @property
    def n_bands(self) -> int:
        """Number of bands."""
        return self.dx.shape[0]

    @property
    def n_sources(self) -> int:
        """Number of sources, without padding. Not for use under jit."""
        return int(sum(int(stack.active.sum()) for stack in self.sources))

    def without_shared(self) -> "Scene":
        """The scene without what its stacks share, such as a decoder, for results of many scenes:
        a leading axis of these would copy it. It draws nothing before `with_shared`."""
        return eqx.tree_at(_shared, self, [None] * len(self.sources), is_leaf=_is_none)

    def with_shared(self, other: "Scene") -> "Scene":
        """The scene with what the stacks of another one share; inverse of `without_shared`."""
        return eqx.tree_at(_shared, self, _shared(other), is_leaf=_is_none)

    def components(self) -> list[AbstractComponent]:
        """The sources one by one, in the order they were given. Not for use under jit.

        Of stacks that were made apart, one stack after the other.
        """
        found: list[tuple[int, AbstractComponent]] = []
        for stack in self.sources:
            for place in np.flatnonzero(np.asarray(stack.active)):
                member = stack.member(int(place))
                rank = int(stack.rank[place])
                found.append((rank, member.plain() if isinstance(member, AnySource) else member))
        # Ranks that come twice are not places in one list.
        if len({rank for rank, _ in found}) == len(found):
            found.sort(key=lambda pair: pair[0])
        return [member for _, member in found]


def map_scenes(function: Callable[[Scene], Any], scenes: Scene) -> Any:
    """`function` of each of many scenes, by `jax.vmap`.

    - `scenes`: arrays with a leading axis, all but what the stacks share, which is there once: as
        `samples` of a fit are.
    """
    own = scenes.without_shared()
    return jax.vmap(lambda scene: function(scene.with_shared(scenes)))(own)


def _shared(scene: Scene) -> list[Any]:
    return [stack.shared for stack in scene.sources]


def _is_none(value: Any) -> bool:
    return value is None


def profiles(scene: Scene, modes: Modes) -> Pair:
    """Profiles of unit flux of all slots of all stacks, each `(slot, k)`."""
    pairs = [stack.fourier(modes) for stack in scene.sources]
    if len(pairs) == 1:
        return pairs[0]
    # A concatenate fused with what feeds it becomes scalar code on CPU.
    pairs = jax.lax.optimization_barrier(pairs)
    return jnp.concatenate([p[0] for p in pairs]), jnp.concatenate([p[1] for p in pairs])


def slot_flux(scene: Scene) -> Float[Array, "slot band"]:
    """Fluxes of all slots of all stacks."""
    return jnp.concatenate([stack.flux for stack in scene.sources])


def seen_through(psf: AbstractPSF, scene: Scene, grid: Grid, quality: Quality) -> Pair:
    """Transfer function of the PSF with the scene's shift of each band, `(band, k)`."""
    return multiply(transfer(psf, grid, quality), shift(grid.modes, scene.dx, scene.dy))


def render(
    scene: Scene,
    psf: AbstractPSF,
    shape: tuple[int, int],
    *,
    quality: Quality = STANDARD,
) -> Float[Array, "band y x"]:
    """The image of a scene, without noise. Pure and differentiable; jit it with `shape` static.

    Components and PSF meet in Fourier space; one inverse transform a band.

    - `psf`: as many bands as the scene.
    - `shape`: pixels of the stamp, (ny, nx).
    - `quality`: `FIT`, `STANDARD` or `fine()` of `diffdeblend.grid`.

    **Raises:** `ValueError` if the bands of `psf` and `scene` disagree.
    """
    _check_bands(scene, psf)
    grid = make_grid(shape, quality)
    image = sum_slots(scene, seen_through(psf, scene, grid, quality), grid, quality)
    if scene.background is not None:
        image = image + scene.background(grid)
    return image


def render_each(
    scene: Scene,
    psf: AbstractPSF,
    shape: tuple[int, int],
    *,
    quality: Quality = STANDARD,
) -> tuple[Float[Array, "source band y x"], ...]:
    """The image of every source alone, without sky: one array for each stack of the scene.

    Arguments as those of `render`.
    """
    _check_bands(scene, psf)
    grid = make_grid(shape, quality)
    through = seen_through(psf, scene, grid, quality)

    def alone(shared: Any, own: AbstractComponent, active: Array, rank: Array) -> Array:
        # A stack of one: the sum over its parts is the source.
        members = jax.tree.map(lambda leaf: leaf[None], own)
        one = Stack(members, active[None], rank[None], shared=shared)
        return sum_slots(Scene([one], dx=scene.dx, dy=scene.dy), through, grid, quality)

    return tuple(
        jax.lax.map(
            lambda source, shared=stack.shared: alone(shared, *source),
            (stack.members, stack.active, stack.rank),
        )
        for stack in scene.sources
    )


def residual(
    scene: Scene, exposure: Exposure, *, quality: Quality = STANDARD
) -> Float[Array, "band y x"]:
    """Data minus model; zero where a pixel is not used."""
    shape = (exposure.image.shape[1], exposure.image.shape[2])
    model = render(scene, exposure.psf, shape, quality=quality)
    return jnp.where(exposure.good, exposure.data - model, 0)


def sum_slots(
    scene: Scene, through: Pair, grid: Grid, quality: Quality
) -> Float[Array, "band y x"]:
    """The sources' image, given the transfer function of PSF and shifts."""
    re, im = profiles(scene, grid.modes)
    flux = slot_flux(scene)
    spectrum = tuple(jnp.matmul(flux.T, part, precision=EXACT) for part in (re, im))
    image = to_image(multiply((spectrum[0], spectrum[1]), through), grid)
    if quality.corrections:
        wings = jnp.concatenate(
            [wrapped_wings(stack.wings, grid, scene.dx.dtype) for stack in scene.sources]
        )
        wings = jnp.einsum("sb,sji->bji", flux, wings, precision=EXACT)
        image = image - spread_wings(wings, grid)
    return image


def _stacked(sources: Sequence[AbstractComponent | Stack]) -> tuple[Stack, ...]:
    if not len(sources):
        raise ValueError("`sources` is empty; a scene needs at least one source.")
    if all(isinstance(source, Stack) for source in sources):
        return tuple(sources)  # type: ignore[arg-type]
    groups: dict[object, list[tuple[int, AbstractComponent]]] = {}
    for rank, source in enumerate(sources):
        if not isinstance(source, AbstractComponent):
            raise ValueError(
                "`sources` must be all components or all stacks; "
                f"number {rank} is a {type(source).__name__}."
            )
        own, shared = source.split()
        shapes = tuple(np.shape(leaf) for leaf in jax.tree.leaves(own))
        # The leaves of what is shared are kept by `source`, so that no other can get their ids.
        kind = (jax.tree.structure(source), shapes, identity(shared))
        groups.setdefault(kind, []).append((rank, source))
    return tuple(
        stack_components([s for _, s in group], rank=[r for r, _ in group])
        for group in groups.values()
    )


def _check_bands(scene: Scene, psf: AbstractPSF) -> None:
    if psf.n_bands != scene.n_bands:
        raise ValueError(f"`psf` has {psf.n_bands} bands, the scene {scene.n_bands}.")
