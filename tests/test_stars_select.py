"""Which sources are stars, and which of them are kept out."""

import numpy as np
import pytest

from diffdeblend.stars import reserve_stars, stellar_locus

SHAPE = (700, 1000)


def field(rng, n_stars=200, n_galaxies=300, spread=0.01):
    sizes = np.concatenate(
        [
            1.6 * (1 + spread * rng.normal(size=n_stars)),
            np.hypot(1.6, rng.lognormal(np.log(1.5), 0.4, n_galaxies)),
        ]
    )
    snr = 10 ** rng.uniform(1.6, 3, len(sizes))
    return sizes, snr, np.arange(len(sizes)) < n_stars


def test_stars_are_told_from_galaxies():
    size, snr, star = field(np.random.default_rng(1))
    found = stellar_locus(size, snr)
    assert found[star].mean() >= 0.95
    assert (~star[found]).mean() <= 0.02


def test_many_cosmic_rays_do_not_move_the_locus():
    rng = np.random.default_rng(2)
    size, snr, star = field(rng)
    rays = rng.uniform(0.3, 1.2, 150)
    found = stellar_locus(np.append(rays, size), np.append(np.full(150, 200.0), snr))
    assert found[150:][star].mean() >= 0.95
    assert not found[:150].any()


def test_stars_whose_size_varies_over_the_image_are_all_found():
    rng = np.random.default_rng(3)
    size, snr, star = field(rng)
    x, y = rng.uniform(0, SHAPE[1], len(size)), rng.uniform(0, SHAPE[0], len(size))
    size = size * (1 + 0.12 * (x / SHAPE[1] - 0.5) - 0.1 * (y / SHAPE[0] - 0.5))
    found = stellar_locus(size, snr, x=x, y=y, shape=SHAPE)
    assert found[star].mean() >= 0.95
    # Without places the locus is as wide as the sizes vary, and takes galaxies in.
    assert found[~star].sum() < stellar_locus(size, snr)[~star].sum()


def test_twenty_of_a_hundred_are_reserved_and_the_seed_says_which():
    kept = reserve_stars(100, 0.2, seed=5)
    assert kept.sum() == 20
    assert (kept == reserve_stars(100, 0.2, seed=5)).all()
    assert (kept != reserve_stars(100, 0.2, seed=6)).any()


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="`size` and `snr`"):
        stellar_locus([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="holds no source"):
        stellar_locus([], [])
    with pytest.raises(ValueError, match="lower `min_snr`"):
        stellar_locus([1.5], [3.0])
    with pytest.raises(ValueError, match="`reserve`"):
        reserve_stars(10, 1.0)
