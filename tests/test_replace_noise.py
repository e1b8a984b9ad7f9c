"""Sources replaced by noise, and one of them put back."""

import galsim
import jax
import numpy as np
import pytest

from diffdeblend.exposure import make_exposure
from diffdeblend.footprints import Footprint, HeavyFootprint, Peaks, SourceRecords, SpanSet
from diffdeblend.psf import GaussianPSF
from diffdeblend.replace_noise import alone, draw_replacement, replace_noise

SHAPE = (90, 130)
SIGMA, LEVEL = 3.0, 2.0
NOISES = ("measure", "variance", "variance_median", 3.0)


def galaxy(x, y, flux):
    image = galsim.Gaussian(sigma=2).drawImage(
        nx=SHAPE[1], ny=SHAPE[0], scale=1, offset=(x - (SHAPE[1] - 1) / 2, y - (SHAPE[0] - 1) / 2)
    )
    return flux * image.array


def spans(x, y, radius=12):
    return SpanSet.from_stencil(radius, "circle", (x, y)).clipped(SHAPE)


def peak(x, y):
    return Peaks([x], [y], [1.0])


PLACES = ((40, 40), (52, 40), (46, 50), (100, 20), (20, 78))
FLUXES = (3e6, 2e6, 1e6, 4e6, 5e5)


@pytest.fixture(scope="module")
def field():
    """A blend of three whose children are the true images, and two alone; level taken off."""
    rng = np.random.default_rng(8)
    light = [galaxy(x, y, flux) for (x, y), flux in zip(PLACES, FLUXES, strict=True)]
    image = sum(light) + rng.normal(0, SIGMA, SHAPE)
    exposure = make_exposure(image, SIGMA**2, GaussianPSF([3.0]))
    whole = spans(*PLACES[0]).union(spans(*PLACES[1])).union(spans(*PLACES[2]))
    parents = [
        Footprint(whole, Peaks(*np.array(PLACES[:3]).T, np.array(FLUXES[:3]))),
        *(Footprint(spans(x, y), peak(x, y)) for x, y in PLACES[3:]),
    ]
    children = [
        HeavyFootprint.from_arrays(Footprint(spans(x, y), peak(x, y)), one, np.full(SHAPE, 4.0))
        for (x, y), one in zip(PLACES[:3], light, strict=False)
    ]
    records = SourceRecords.from_footprints(parents).with_children([1, 1, 1], children)
    return exposure, records


def covered(records):
    mask = np.zeros(SHAPE, bool)
    for one in records.footprints:
        mask[one.spans.indices()] = True
    return mask


@pytest.mark.parametrize("noise", NOISES)
def test_footprints_hold_noise_of_the_law_asked_for(field, noise):
    exposure, records = field
    replaced = replace_noise(exposure, records, noise=noise, offset=LEVEL)
    image, before = np.asarray(replaced.exposure.image[0]), np.asarray(exposure.image[0])
    mask = covered(records)
    np.testing.assert_array_equal(image[~mask], before[~mask])
    n = mask.sum()
    assert abs(image[mask].mean() - LEVEL) < 3 * SIGMA / np.sqrt(n) + 0.1
    assert abs(image[mask].std() / SIGMA - 1) < 3 / np.sqrt(2 * n) + 0.01
    np.testing.assert_array_equal(replaced.exposure.variance, exposure.variance)
    np.testing.assert_array_equal(replaced.exposure.flag("OTHERDET")[0], mask)
    assert not np.asarray(replaced.exposure.flag("THISDET")).any()


@pytest.mark.parametrize("noise", NOISES)
def test_each_source_alone_has_its_own_light(field, noise):
    exposure, records = field
    replacer = replace_noise(exposure, records, noise=noise)
    for id, flux in zip((4, 5, 6, 2, 3), FLUXES, strict=True):
        now = replacer.insert(id).exposure
        own = np.asarray(now.flag("THISDET")[0])
        image = np.asarray(now.image[0])
        true = flux * galaxy(*PLACES[FLUXES.index(flux)], 1)[own].sum()
        assert abs(image[own].sum() / true - 1) < 1e-3
        assert abs(image[~own].sum()) < 3 * SIGMA * np.sqrt((~own).sum())
        assert not (own & np.asarray(now.flag("OTHERDET")[0])).any()


def test_the_end_is_the_beginning_bit_for_bit(field):
    exposure, records = field
    far = HeavyFootprint.from_arrays(
        Footprint(spans(70, 70), peak(70, 70)), np.ones(SHAPE), np.ones(SHAPE)
    )
    more = records.with_children([1], [far])
    end = replace_noise(exposure, more).insert(7).insert(2).end()
    for name in ("image", "mask", "variance"):
        np.testing.assert_array_equal(getattr(end, name), getattr(exposure, name))
    assert end.header.mask_planes == exposure.header.mask_planes


def test_the_order_of_insertions_does_not_matter(field):
    exposure, records = field
    one = replace_noise(exposure, records, seed=4)
    other = one.insert(4).remove(4).insert(3).remove(3).insert(5)
    np.testing.assert_array_equal(other.exposure.image, one.insert(5).exposure.image)
    np.testing.assert_array_equal(other.exposure.mask, one.insert(5).exposure.mask)
    np.testing.assert_array_equal(other.remove(5).exposure.image, one.exposure.image)
    # Who is not in cannot be taken out.
    np.testing.assert_array_equal(other.remove(4).exposure.image, other.exposure.image)
    again = replace_noise(exposure, records, seed=4)
    np.testing.assert_array_equal(again.base, one.base)
    assert not np.array_equal(replace_noise(exposure, records, seed=5).base, one.base)


def test_stamps_are_what_insertions_show(field):
    exposure, records = field
    replacer = replace_noise(exposure, records)
    rows = np.array([0, 3, 4, 5, 2])
    # The last is a source at the border, on a stamp that leaves the image.
    x0, y0 = np.array([20, 25, 30, 30, -5]), np.array([20, 20, 15, 25, 60])
    height, width = 50, 60
    stamps = replacer.stamps(rows, x0, y0, (height, width))
    for n, row in enumerate(rows):
        now = replacer.insert(int(records.id[row])).exposure
        pad = ((60, 60), (60, 60))
        part = np.s_[60 + y0[n] : 60 + y0[n] + height, 60 + x0[n] : 60 + x0[n] + width]
        np.testing.assert_array_equal(stamps.image[n], np.pad(now.image[0], pad)[part])
        own = np.pad(now.flag("THISDET")[0], pad)[part]
        np.testing.assert_array_equal(stamps.own[n], own)
        inside = np.pad(np.ones(SHAPE, bool), pad)[part]
        np.testing.assert_array_equal(stamps.inside[n], inside)
        variance = np.where(own & (row > 2), 4.0, SIGMA**2) * inside
        np.testing.assert_array_equal(stamps.variance[n], variance)


def test_a_compiled_program_shows_the_same(field):
    exposure, records = field
    replacer = replace_noise(exposure, records)
    masks = np.stack([one.spans.to_mask(SHAPE) for one in records.footprints])
    pixels = np.stack([replacer.heavy(k).to_image(box=SHAPE) for k in range(len(records))])
    shown = np.asarray(jax.jit(alone)(exposure.image[0], masks, pixels, replacer.base))
    for k, id in enumerate(records.id):
        np.testing.assert_array_equal(shown[k], replacer.insert(int(id)).exposure.image[0])


def test_planes_of_another_replacement_are_cleared(field):
    exposure, records = field
    before = exposure.with_mask("THISDET", np.ones(SHAPE, bool))
    now = replace_noise(before, records).insert(2).exposure
    assert np.asarray(now.flag("THISDET")).sum() == records.footprints[1].area
    assert now.header.mask_planes[-1] == "OTHERDET"


def test_only_the_band_is_replaced():
    rng = np.random.default_rng(1)
    image = rng.normal(0, 1, (2, 30, 41))
    exposure = make_exposure(image, [1.0, 4.0], GaussianPSF([3.0, 3.0]), bands=("g", "r"))
    records = SourceRecords.from_footprints(
        [Footprint(SpanSet.from_box((5, 25, 5, 25)), peak(9, 9))]
    )
    now = replace_noise(exposure, records, band="r", noise="variance").exposure
    np.testing.assert_array_equal(now.image[0], exposure.image[0])
    assert not np.asarray(now.flag("OTHERDET")[0]).any()
    assert 1.7 < np.asarray(now.image[1])[5:25, 5:25].std() < 2.3


def test_noise_is_correlated_where_that_of_the_image_is():
    stamp = np.array([[0.1, 0.2, 0.1], [0.4, 1, 0.4], [0.1, 0.2, 0.1]])
    shape = (200, 240)
    where = np.ones(shape, bool)
    zero = np.zeros(shape)
    drawn = draw_replacement(zero, zero + 4, where, where, noise="variance", correlation=2 * stamp)
    along_x = (drawn[:, 1:] * drawn[:, :-1]).mean() / drawn.var()
    along_y = (drawn[1:] * drawn[:-1]).mean() / drawn.var()
    np.testing.assert_allclose([drawn.std(), along_x, along_y], [2, 0.4, 0.2], atol=0.03)


def test_unknown_noise_and_sources_are_refused(field):
    exposure, records = field
    with pytest.raises(ValueError, match="`noise` must be one of measure"):
        replace_noise(exposure, records, noise="meta")
    with pytest.raises(ValueError, match="`noise` must be a standard deviation"):
        replace_noise(exposure, records, noise=-1.0)
    with pytest.raises(ValueError, match="`offset` must be finite"):
        replace_noise(exposure, records, offset=np.nan)
    with pytest.raises(ValueError, match="`id` must be one of the 6 sources"):
        replace_noise(exposure, records).insert(77)
