"""The truth of a simulated blend as a scene: what can be rendered, differentiated and fitted."""

import jax.numpy as jnp
import numpy as np

from diffdeblend.components import PointSource, Sersic
from diffdeblend.scene import Scene
from diffdeblend.simulate.sources import Sources


def scene_of(sources: Sources, blend: int) -> Scene:
    """The sources of a blend as a `Scene`, one component a part, in their order.

    - `sources`: from `lay_out`, in the pixels of one survey.

    Rendered with the blend's PSF it is the noiseless image, and, unlike an image, it has
    derivatives by all parameters of all sources.

    **Raises:** `ValueError` for a blend without sources, or one with real galaxies, which have no
    parameters.
    """
    chosen = np.flatnonzero(sources.blend == blend)
    if not len(chosen) or sources.real[chosen].any():
        raise ValueError(f"`blend` {blend} has no sources, or some that are images of galaxies.")
    components = []
    for k in chosen:
        for p in range(int(sources.first[k]), int(sources.first[k + 1])):
            flux, x, y = sources.flux[k] * sources.share[p], sources.x[k], sources.y[k]
            if sources.radius[p] == 0:
                components.append(PointSource(flux, x, y))
            else:
                shear = jnp.asarray([sources.g1[p], sources.g2[p]])
                components.append(Sersic(flux, x, y, sources.radius[p], sources.index[p], shear))
    return Scene(components)
