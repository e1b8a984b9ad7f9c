"""Which pixels of a cluster go to the same attractor."""

from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from diffdeblend.segment.attractors import (
    Children,
    find_targets,
    merge_attractors,
    nearest_in_group,
)
from diffdeblend.segment.denclue import Climb, climb
from diffdeblend.segment.grid_ascent import climb_grid
from diffdeblend.segment.members import Members

AscentMethod = Literal["grid", "exact"]


# Times as many pixels make a group of attractors where only some pixels climb: found on scenes with
# a flat cluster, and scored on others.
_SPOKESMAN = 2.0


def find_children(
    members: Members,
    h: Float[np.ndarray, "group"],
    radius: Float[np.ndarray, "group"],
    *,
    method: AscentMethod = "grid",
    gl_downsampling: bool = False,
    gl_sigma: float = 1.25,
    gl_th_rel: float = 0.1,
    h_grid: int = 3,
    digitize_attractors: bool = False,
    mask_unchanged: float | None = None,
    attr_dbs_eps: float = 1.0,
    attr_dbs_K: float = 4.0,
    **options: Any,
) -> tuple[Children, np.ndarray, Climb]:
    """Children of all clusters; the rows of the members that climbed, and their climb.

    Arguments are those of `denclue_deblend`; `options` go on to `climb`.
    """
    n = len(members.x)
    if method == "grid":
        # Steps on the grid say who goes where; only the few tops climb on between pixels.
        start, of_pixel = np.unique(climb_grid(members, h), return_inverse=True)
    elif gl_downsampling:
        start = find_targets(members, sigma=gl_sigma, gl_th_rel=gl_th_rel, h_grid=h_grid)
        places = np.column_stack([members.x, members.y])
        near = (places, members.group, places[start], members.group[start])
        of_pixel = nearest_in_group(*near)
    else:
        start = of_pixel = np.arange(n)
    x, y = members.x[start].astype(float), members.y[start].astype(float)
    climbed = climb(members, members.group[start], x, y, h, radius, **options)
    left_out = None
    if mask_unchanged is not None:
        left_out = (np.hypot(climbed.x - x, climbed.y - y) < mask_unchanged)[of_pixel]
    end_x, end_y = climbed.x.astype(float), climbed.y.astype(float)
    if digitize_attractors:
        end_x, end_y = np.rint(end_x), np.rint(end_y)
    # One that climbs speaks for several pixels here, and chance for as many at once.
    least = _SPOKESMAN * attr_dbs_K if gl_downsampling else attr_dbs_K
    options = {"eps": attr_dbs_eps, "K": least, "left_out": left_out}
    children = merge_attractors(members, members.group[start], end_x, end_y, of_pixel, **options)
    return children, start, climbed
