"""Light in circles, and the circle that holds a given share of it."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from diffdeblend.measure.kron import Aperture, aperture_photometry
from diffdeblend.measure.neighbours import MaskMethod, box_around, mirror, pixels_of
from diffdeblend.measure.overlap import circle_overlap
from diffdeblend.measure.windows import Window

Scalar = Float[Array, ""]

# The smallest radius that is sought, in pixels, and by which share the largest shrinks in turn.
_LEAST_RADIUS, _SHRINK = 0.1, 0.1
_MOST_STEPS = 100


def circular_photometry(
    window: Window,
    x: Scalar,
    y: Scalar,
    radius: Scalar,
    local_background: Scalar,
    method: MaskMethod = "correct",
) -> Aperture:
    """Light in a circle of `radius` pixels; else as `kron.aperture_photometry`."""
    zero = jnp.zeros_like(radius)
    return aperture_photometry(window, x, y, radius, radius, zero, local_background, method)


def flux_radius(
    window: Window,
    x: Scalar,
    y: Scalar,
    kron_flux: Scalar,
    most: Scalar,
    local_background: Scalar,
    fraction: Scalar,
    method: MaskMethod = "correct",
) -> Scalar:
    """Radius in pixels of the circle that holds a fraction of the Kron flux.

    It is sought between 0.1 and `most`; while these do not bracket it, as where noise makes the
    flux fall with the radius, `most` shrinks by a tenth of itself. NaN where none is found.

    - `most`: larger semi-axis of the Kron aperture. The window has to hold this circle.
    - `fraction`: between 0 and 1.

    ??? cite
        Root finding: Brent (1973), Algorithms for Minimization without Derivatives, ch. 4.
    """
    fine = (kron_flux != 0) & (most > _LEAST_RADIUS)
    for value in (x, y, kron_flux, most):
        fine &= jnp.isfinite(value)
    most = jnp.where(fine, most, 1.0)
    box = box_around(window, x, y, most, most)
    mirrored = mirror(window, x, y) if method == "correct" else None
    data = pixels_of(window, mirrored, x, y, box, local_background, method).data
    shape = (data.shape[0], data.shape[1])
    wanted = fraction * jnp.where(fine, kron_flux, 1.0)

    def missing(radius: Scalar) -> Scalar:
        return 1.0 - jnp.sum(data * circle_overlap(shape, x, y, radius)) / wanted

    least = jnp.full_like(most, _LEAST_RADIUS)

    # The value at the least radius is the first of the loop's: a call before it would be compiled
    # once more.
    def unbracketed(state):
        end, value, at_least, steps = state
        return (steps < 2) | ((value * at_least > 0) & (end > _LEAST_RADIUS))

    def shrink(state):
        end, _, at_least, steps = state
        end = jnp.where(steps == 0, least, jnp.where(steps == 1, most, end - _SHRINK * most))
        value = missing(end)
        return end, value, jnp.where(steps == 0, value, at_least), steps + 1

    start = (least, jnp.zeros_like(most), jnp.zeros_like(most), jnp.int32(0))
    end, at_end, at_least, _ = lax.while_loop(unbracketed, shrink, start)
    found = fine & (at_end * at_least <= 0) & (end > _LEAST_RADIUS)
    end = jnp.where(found, end, 1.0)
    root = brent_root(missing, least, end, at_least, jnp.where(found, at_end, 0.0))
    return jnp.where(found, root, jnp.nan)


class _Bracket(NamedTuple):
    """`now` is the best; the root lies between it and `other`; `before` is the one before it."""

    before: Scalar
    now: Scalar
    other: Scalar
    f_before: Scalar
    f_now: Scalar
    f_other: Scalar
    last: Scalar
    last_but_one: Scalar
    steps: Scalar
    done: Scalar


def brent_root(function, low: Scalar, high: Scalar, f_low: Scalar, f_high: Scalar) -> Scalar:
    """Root of a function between two places where its signs differ, to a few units of rounding.

    One of inverse quadratic interpolation, secant and bisection a step, as in scipy's `brentq`.
    """
    rounding = jnp.finfo(low.dtype).eps
    x_tolerance, relative = 2e-12 if rounding < 1e-10 else 1e-6, 4 * rounding

    def step(s: _Bracket) -> _Bracket:
        apart = (s.f_before != 0) & (s.f_now != 0) & ((s.f_before < 0) != (s.f_now < 0))
        other = jnp.where(apart, s.before, s.other)
        f_other = jnp.where(apart, s.f_before, s.f_other)
        width = s.now - s.before
        last = jnp.where(apart, width, s.last)
        last_but_one = jnp.where(apart, width, s.last_but_one)
        # The better of the two ends is `now`.
        swap = jnp.abs(f_other) < jnp.abs(s.f_now)
        before = jnp.where(swap, s.now, s.before)
        f_before = jnp.where(swap, s.f_now, s.f_before)
        now, f_now = jnp.where(swap, other, s.now), jnp.where(swap, f_other, s.f_now)
        other, f_other = jnp.where(swap, before, other), jnp.where(swap, f_before, f_other)

        delta = (x_tolerance + relative * jnp.abs(now)) / 2
        bisection = (other - now) / 2
        done = (f_now == 0) | (jnp.abs(bisection) < delta)

        def ratio(p, q):
            return p / jnp.where(q == 0, 1.0, q)

        secant = ratio(-f_now * (now - before), f_now - f_before)
        slope_before = ratio(f_before - f_now, before - now)
        slope_other = ratio(f_other - f_now, other - now)
        quadratic = ratio(
            -f_now * (f_other * slope_other - f_before * slope_before),
            slope_other * slope_before * (f_other - f_before),
        )
        tried = jnp.where(before == other, secant, quadratic)
        short = 2 * jnp.abs(tried) < jnp.minimum(
            jnp.abs(last_but_one), 3 * jnp.abs(bisection) - delta
        )
        short &= (jnp.abs(last_but_one) > delta) & (jnp.abs(f_now) < jnp.abs(f_before))
        move = jnp.where(short, tried, bisection)
        new_last_but_one = jnp.where(short, last, bisection)
        least = jnp.where(bisection > 0, delta, -delta)
        place = now + jnp.where(jnp.abs(move) > delta, move, least)
        place = jnp.where(done, now, place)
        value = function(place)
        new = _Bracket(
            now, place, other, f_now, value, f_other, move, new_last_but_one, s.steps + 1, done
        )
        stop = s._replace(now=now, done=done)
        return _Bracket(*(jnp.where(done, a, b) for a, b in zip(stop, new, strict=True)))

    zero = jnp.zeros_like(low)
    start = _Bracket(
        low, high, low, f_low, f_high, f_low, zero, zero, zero, (f_low == 0) | (f_high == 0)
    )
    start = start._replace(now=jnp.where(f_low == 0, low, high))
    ended = lax.while_loop(lambda s: ~s.done & (s.steps < _MOST_STEPS), step, start)
    return ended.now
