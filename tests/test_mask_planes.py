"""Planes of a mask by name: their bits, and how planes go."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffdeblend.exposure import STANDARD_PLANES, make_exposure
from diffdeblend.psf import GaussianPSF

SHAPE = (2, 5, 8)


def exposure(mask=None, **options):
    psf = GaussianPSF([2.0, 3.0])
    return make_exposure(np.ones(SHAPE), 1.0, psf, mask=mask, **options)


def test_values_of_planes_are_powers_of_two():
    made = exposure()
    assert made.plane_bits["DETECTED"] == 5
    assert made.mask_value("DETECTED") == 32
    assert made.mask_value(("EDGE", "DETECTED")) == 48
    assert made.mask_value(("EDGE", "DETECTED", "EDGE")) == 48
    assert made.mask_value(()) == 0
    assert list(made.plane_bits) == list(STANDARD_PLANES)


def test_pixels_on_two_planes_hold_both_bits():
    where = np.zeros(SHAPE[1:], bool)
    where[1, 2] = True
    made = exposure().with_mask("EDGE", where).with_mask("DETECTED", where)
    assert (np.asarray(made.mask) == np.where(where, 48, 0)).all()


def test_clear_mask_clears_all_or_some():
    bits = np.random.default_rng(1).integers(0, 2**9, SHAPE)
    made = exposure(bits.astype(np.int32), mask_planes=STANDARD_PLANES, excluded=())
    none = made.clear_mask()
    assert not np.asarray(none.mask).any()
    assert none.header is made.header
    some = made.clear_mask(("SAT", "DETECTED"))
    np.testing.assert_array_equal(some.mask, bits & ~(2 | 32))
    one = made.clear_mask("NO_DATA")
    np.testing.assert_array_equal(one.mask, bits & 255)


@pytest.mark.parametrize("plane", ["BAD", "EDGE", "NO_DATA", "MINE"])
def test_planes_come_and_go_and_others_keep_their_bits(plane):
    bits = np.random.default_rng(2).integers(0, 2**9, SHAPE)
    made = exposure(bits.astype(np.int32), mask_planes=STANDARD_PLANES, excluded=())
    made = made.with_mask("MINE", bits[0] > 100)
    gone = made.without_plane(plane)
    assert plane not in gone.plane_bits
    for name in made.plane_bits:
        if name != plane:
            assert gone.plane_bits[name] == made.plane_bits[name]
            np.testing.assert_array_equal(gone.flag(name), made.flag(name))
    assert not (np.asarray(gone.mask) & made.mask_value(plane)).any()
    back = gone.with_mask(plane, bits[1] > 300)
    np.testing.assert_array_equal(back.flag(plane)[0], bits[1] > 300)
    np.testing.assert_array_equal(back.flag("SAT"), made.flag("SAT"))


def test_the_last_plane_frees_its_bit():
    made = exposure()
    for k in range(100):
        made = made.with_mask(f"TEMPORARY_{k}", np.ones(SHAPE[1:], bool))
        made = made.without_plane(f"TEMPORARY_{k}")
    assert tuple(made.plane_bits) == STANDARD_PLANES
    assert not np.asarray(made.mask).any()


def test_bit_31_is_cleared():
    planes = tuple(f"P{k}" for k in range(32))
    bits = np.full(SHAPE, 0x80000001, np.uint32)
    made = exposure(bits, mask_planes=planes, excluded=())
    assert made.mask_value("P31") == 2**31
    np.testing.assert_array_equal(made.clear_mask("P31").mask, 1)
    np.testing.assert_array_equal(made.clear_mask("P0").mask, np.int32(-(2**31)))


def test_clear_mask_under_jit():
    made = exposure().with_mask("DETECTED", np.ones(SHAPE[1:], bool))
    cleared = jax.jit(lambda e: e.clear_mask("DETECTED").mask)(made)
    assert not jnp.any(cleared)


@pytest.mark.parametrize(
    "act",
    [
        lambda e: e.clear_mask("NOPE"),
        lambda e: e.without_plane("NOPE"),
        lambda e: e.mask_value(("EDGE", "NOPE")),
    ],
)
def test_unknown_planes_are_refused(act):
    with pytest.raises(ValueError, match=r"`planes` must be among the mask planes .*NOPE"):
        act(exposure())
