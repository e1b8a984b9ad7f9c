"""Figures of learned priors."""

from dataclasses import dataclass

import jax
import numpy as np
import pytest

from diffdeblend.plot_priors import plot_galaxies, plot_samples, plot_training


class Scaled:
    """As a prior: its galaxies are one image, made steeper by a number of any galaxy."""

    image = np.random.default_rng(0).random((7, 7))

    def sample(self, key, n):
        return np.asarray(jax.random.key_data(key))[-1] + np.arange(n)

    def decode(self, latent):
        images = self.image ** (1 + latent[:, None, None])
        return images / images.sum(axis=(1, 2), keepdims=True)


@dataclass
class Curves:
    step: np.ndarray
    loss: np.ndarray
    validation_loss: np.ndarray


@dataclass
class DecoderCurves(Curves):
    information: np.ndarray
    validation_information: np.ndarray


def test_losses_are_drawn_and_the_first_does_not_hide_them():
    step = np.arange(1, 9) * 500
    loss = np.array([900, 200, 90, 80, 75, 72, 71, 70.0])
    page = plot_training(Curves(step, loss, loss + 3))
    (axes,) = page.axes
    known, unseen = axes.lines
    assert np.array_equal(known.get_ydata(), loss)
    assert np.array_equal(unseen.get_ydata(), loss + 3)
    low, high = axes.get_ylim()
    assert low < 70
    assert 93 < high < 200
    two = plot_training(DecoderCurves(step, loss, loss + 3, loss / 4, loss / 5))
    assert [axes.get_ylabel() for axes in two.axes] == ["loss", "information [nat]"]
    assert np.array_equal(two.axes[1].lines[1].get_ydata(), loss / 5)


def test_galaxies_stand_in_rows_by_group():
    rng = np.random.default_rng(0)
    groups = {"first": rng.random((5, 6, 8)) + 0.1, "second": 1e-9 * rng.random((3, 6, 8))}
    page = plot_galaxies(groups, columns=3)
    # Rows of 3 and 2, and one of 3.
    assert len(page.axes) == 8
    words = {n: axes.texts[0].get_text() for n, axes in enumerate(page.axes) if axes.texts}
    assert words == {0: "first", 3: "first", 5: "second"}
    for axes, image in zip(page.axes, [*groups["first"], *groups["second"]], strict=True):
        shown = axes.images[0].get_array()
        assert shown.max() == 0
        peak = np.unravel_index(np.argmax(image), image.shape)
        assert shown[peak] == 0
    with pytest.raises(ValueError, match="`groups`"):
        plot_galaxies({"none": np.zeros((0, 3, 3))})


def test_samples_stand_below_what_was_learnt_from():
    images, prior = np.random.default_rng(1).random((9, 7, 7)), Scaled()
    page = plot_samples(prior, images, n=4, seed=2)
    assert len(plot_samples(prior, n=4, seed=2).axes) == 4
    assert len(page.axes) == 8
    for number, axes in enumerate(page.axes):
        shown = np.asarray(axes.images[0].get_array())
        relative = [np.log10(np.maximum(one / one.max(), 1e-4)) for one in images]
        if number < 4:
            assert sum(np.allclose(shown, one) for one in relative) == 1
        else:
            # The seed is the key's last word, and the first sample's number.
            steep = (1 + 2 + number - 4) * np.log10(prior.image / prior.image.max())
            assert np.allclose(shown, np.maximum(steep, -4))
