"""Images of several bands in colour."""

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, UInt8

# Filters by their first letter, from blue to red.
_LETTERS = "ubgvrizyjhk"
# JWST's filters beyond 2 micrometres, whose numbers would be ultraviolet or blue ones of HST.
_JWST = (200, 210, 212, 250, 277, 300, 322, 323, 335, 356, 360, 405, 410, 430, 444, 460, 480)
_UNUSED = (70, 76, 92)
# Where the colour scale turns from linear to logarithmic, in standard deviations of the noise.
_KNEE = 4.0


class Painter:
    """One colour scale for all panels of a blend.

    Bands are brought to the mean colour of the blend's sources, so that a red one looks red among
    the others; the knee of the stretch sits just above the noise, and the brightest pixel of the
    model at the end. Blue, green and red are means of neighbouring bands, as a tent over the
    wavelengths, by inverse variance: less noise than three bands alone would have.

    - `light`: fluxes of the sources whose mean colour is grey; those of the models if None. One for
        several blends makes their colours comparable.
    - `stretch`, `q`: of Lupton's scale, which shows the intensity I as asinh(q I / stretch) / (10
        asinh(q / 10)): without q, white is I = stretch, in standard deviations of the noise, and
        the larger q the more faint light is lifted. None: so that the peak of the model is white.
    - `legend`: what the colours are. `reference`: the band that labels quote.
    - `noise`: of the mean of the three colours.

    **Raises:** `ValueError` for a `stretch` or `q` that is not positive.

    ??? cite
        Lupton et al. (2004), PASP 116, 133.
    """

    def __init__(
        self,
        bands: Sequence[str],
        variance: Float[np.ndarray, "band y x"],
        good: Bool[np.ndarray, "band y x"],
        models: Float[np.ndarray, "source band y x"],
        *,
        light: Float[np.ndarray, "source band"] | None = None,
        stretch: float | None = None,
        q: float | None = None,
    ):
        for name, value in (("stretch", stretch), ("q", q)):
            if value is not None and not (np.isfinite(value) and value > 0):
                raise ValueError(f"`{name}` must be positive; got {value}.")
        order = by_wavelength(bands)
        sigma = np.array([_middle(np.sqrt(v[g])) for v, g in zip(variance, good, strict=True)])
        light = np.maximum(models.sum(axis=(2, 3)) if light is None else light, 0)
        scale = _grey_scale(light, sigma) if len(bands) >= 3 else 1 / sigma
        tent = np.ones((1, len(bands)))
        self.legend = " + ".join(bands[k] for k in order)
        if len(bands) >= 3:
            tent = np.maximum(0, 1 - np.abs(np.linspace(0, 2, len(bands)) - np.arange(3)[:, None]))
            tent = tent[:, np.argsort(order)]
            self.legend = f"{bands[order[0]]} blue to {bands[order[-1]]} red"
        share = tent / (scale * sigma) ** 2
        # One row of weights for each colour: three, or one for grey.
        self.share = share / share.sum(axis=1, keepdims=True)
        self.scale = scale
        self.noise = float(np.sqrt(np.sum((self.share.mean(axis=0) * scale * sigma) ** 2)))
        letters = [_letter(band) for band in bands]
        self.reference = letters.index("r") if "r" in letters else order[len(order) // 2]
        # The model sets the scale: a hot pixel of the data must not.
        channels = self._channels(models.sum(axis=0)).reshape(len(tent), -1)
        intensity, floor = channels.mean(axis=0), 10 * self.noise
        lit = intensity > floor
        # Of a colour to the mean of the three, 3 where a pixel has no other colour.
        strength = np.append(np.minimum(channels.max(axis=0)[lit] / intensity[lit], 3), 1.0)
        intensity = np.append(intensity[lit], floor)
        # Lupton's function is asinh(Q I / stretch) 0.1 / asinh(0.1 Q). It shall reach 1 in the
        # strongest colour of the brightest pixel, so that no plateau is cut off anywhere.
        if q is None:
            knee = _KNEE * self.noise
            brightest = float(np.max(strength * np.arcsinh(intensity / knee)))
            self.softening = float(10 * np.sinh(0.1 * brightest))
            self.stretch = self.softening * knee
        else:
            self.softening = float(q)
            end = 10 * np.arcsinh(0.1 * self.softening)
            self.stretch = float(np.max(self.softening * intensity / np.sinh(end / strength)))
        if stretch is not None:
            self.stretch = stretch * self.noise

    def __call__(
        self, image: Float[np.ndarray, "band y x"], good: Bool[np.ndarray, "band y x"] | None = None
    ) -> UInt8[np.ndarray, "y x 3"]:
        """Colours of an image, from the bands in use; grey-blue where a colour has none."""
        from astropy.visualization import make_lupton_rgb

        good = np.ones(image.shape, dtype=bool) if good is None else good
        used = np.einsum("cb,byx->cyx", self.share, good.astype(float))
        channels = self._channels(np.where(good, image, 0)) / np.where(used > 0, used, 1)
        blue, green, red = np.broadcast_to(channels, (3, *channels.shape[1:]))
        with np.errstate(divide="ignore", invalid="ignore"):  # 0/0 where there is no light at all
            colours = make_lupton_rgb(
                red,
                green,
                blue,
                stretch=self.stretch,  # type: ignore[arg-type]  # float in fact
                Q=self.softening,  # type: ignore[arg-type]
            )
        colours[(used <= 0).any(axis=0)] = _UNUSED
        return colours

    def intensity(self, image: Float[np.ndarray, "band y x"]) -> Float[np.ndarray, "y x"]:
        """Mean of the colours, before the stretch."""
        return self._channels(image).mean(axis=0)

    def _channels(self, image: np.ndarray) -> Float[np.ndarray, "colour y x"]:
        return np.einsum("cb,byx->cyx", self.share * self.scale, np.asarray(image, float))


def by_wavelength(bands: Sequence[str]) -> list[int]:
    """Places of the bands from blue to red, by their names; as given if a name is not known."""
    wavelengths = [_wavelength(band) for band in bands]
    if any(wavelength is None for wavelength in wavelengths):
        return list(range(len(bands)))
    return sorted(range(len(bands)), key=lambda k: wavelengths[k])  # type: ignore[arg-type]


def residual_significance(
    residual: Float[np.ndarray, "band y x"],
    variance: Float[np.ndarray, "band y x"],
    good: Bool[np.ndarray, "band y x"],
) -> np.ma.MaskedArray:
    """Residual over its noise, summed over the bands in use, again of unit variance.

    Masked where no band is in use.
    """
    sigma = np.sqrt(np.where(good, variance, 1))
    count = good.sum(axis=0)
    total = np.sum(np.where(good, residual / sigma, 0), axis=0)
    return np.ma.masked_array(total / np.sqrt(np.maximum(count, 1)), mask=count == 0)


def _wavelength(band: str) -> float | None:
    """Of a filter by its name, in micrometres, or anything that sorts as it."""
    space = re.search(r"F(\d{3,4})[A-Z]", band.upper())
    if space:
        # HST: F814W is 0.814, but F160W 1.6. JWST: F150W is 1.5, F1500W 15.
        digits = int(space.group(1))
        return digits / 100 if digits < 200 or digits > 999 or digits in _JWST else digits / 1000
    letter = _letter(band)
    centres = dict(
        zip(_LETTERS, (0.36, 0.44, 0.48, 0.55, 0.62, 0.76, 0.89, 1.0, 1.2, 1.6, 2.2), strict=True)
    )
    return centres.get(letter) if letter else None


def _letter(band: str) -> str | None:
    """The letter of a broad filter: `r` of "r", "HSC-R", "r2", "lsst_r" or "DECam r"."""
    last = re.split(r"[-_./: ]", band.strip())[-1].lower()
    found = re.fullmatch(rf"([{_LETTERS}])(\d|p|'|prime|s)?", last)
    return found.group(1) if found else None


def _grey_scale(
    light: Float[np.ndarray, "source band"], noise: Float[np.ndarray, "band"]
) -> Float[np.ndarray, "band"]:
    """Factors that bring the sources' mean colour to grey; faint sources count less."""
    floor = 5 * noise
    weight = np.log1p(np.min(light / floor, axis=1))
    if not (weight > 0).any():
        return 1 / noise
    logs = np.log(np.maximum(light, floor))
    return np.exp(-np.sum(weight[:, None] * logs, axis=0) / weight.sum())


def _middle(values: np.ndarray) -> float:
    return float(np.median(values)) if values.size else 1.0
