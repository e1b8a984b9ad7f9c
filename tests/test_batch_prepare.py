"""What a batch makes of its stamps before the fits, against plain definitions; and that each
program is traced once."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffdeblend import GaussianPSF, MoffatPSF, SampledPSF
from diffdeblend.background.statistics import MAD_TO_STD
from diffdeblend.batch import blend_of_arrays
from diffdeblend.batch.prepare import Preparation, quality_for
from diffdeblend.batch.program import Setup, in_turn, start_of
from diffdeblend.batch.task import Packed, pack_tasks
from diffdeblend.detect.peaks import psf_images, sky_level
from diffdeblend.fit.evaluate import evaluate, unevaluated
from diffdeblend.fit.normal_matrix import fixed_terms
from diffdeblend.fit.objective import make_problem
from diffdeblend.fit.unknowns import free_numbers, unknowns_of
from diffdeblend.psf import AbstractPSF

PSF = GaussianPSF(np.array([2.8, 3.2], np.float32))


def plain_level(values: np.ndarray) -> np.floating:
    """A sigma-clipped median, with no thought of time."""
    for _ in range(10):
        distance = np.abs(values - np.median(values))
        inside = values[distance <= 2.5 * (MAD_TO_STD * np.median(distance))]
        if inside.size == values.size or inside.size < 10:
            break
        values = inside
    return np.median(values)


@settings(deadline=None, max_examples=300)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 20), st.integers(1, 20)),
    kind=st.sampled_from(["noise", "wings", "ties", "bright", "even"]),
    share=st.sampled_from([0.1, 0.5, 1.0]),
    dtype=st.sampled_from([np.float32, np.float64]),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_sky_is_a_clipped_median_to_the_last_bit(shape, kind, share, dtype, seed):
    rng = np.random.default_rng(seed)
    data = {
        "noise": lambda: rng.normal(3, 2, shape),
        "wings": lambda: rng.standard_cauchy(shape),
        "ties": lambda: rng.integers(-2, 4, shape),
        "bright": lambda: rng.normal(size=shape) + rng.exponential(2, shape) ** 3,
        "even": lambda: np.full(shape, rng.normal()),
    }[kind]().astype(dtype)
    used = rng.random(shape) < share
    used[:, 0, 0] = True
    found = sky_level(data, used)
    expected = [plain_level(band[on]) for band, on in zip(data, used, strict=True)]
    assert found.dtype == dtype
    assert found.tolist() == [float(level) for level in expected]


def test_a_band_without_a_level_does_not_touch_the_others():
    data = np.random.default_rng(1).normal(size=(3, 9, 8))
    data[0, 3, 3] = np.nan
    used = np.ones(data.shape, bool)
    used[1] = False
    assert np.isnan(sky_level(data, used)).tolist() == [True, True, False]
    assert sky_level(data, used)[2] == plain_level(data[2].ravel())


def plain_quality(psf) -> tuple[float, float]:
    axis = 2 * np.fft.fftfreq(128)
    highest = np.maximum(np.abs(axis)[:, None], np.abs(axis))
    power = np.abs(np.fft.fft2(psf_images(psf, 61), (128, 128))) ** 2

    def cut(power: np.ndarray, cuts: tuple[float, ...], share: float) -> float:
        beyond = [power[:, highest > c].sum(axis=1) / power.sum(axis=(1, 2)) for c in cuts]
        return next((c for c, b in zip(cuts, beyond, strict=True) if (b <= share).all()), cuts[-1])

    squared = axis[:, None] ** 2 + axis**2
    return cut(power, (0.7, 0.78, 0.9, 1.0), 1e-6), cut(power * squared, (0.5, 0.7, 1.0), 1e-2)


def test_quality_follows_the_finest_psf():
    rng = np.random.default_rng(3)
    psfs = [GaussianPSF(np.array([fwhm, 5.0])) for fwhm in np.linspace(1.5, 4.8, 16)]
    psfs += [
        MoffatPSF(np.array([fwhm, 3.0]), np.array([3.0, 5.0])) for fwhm in np.linspace(1.6, 4, 4)
    ]
    psfs += [SampledPSF(rng.random((2, 15, 21)).astype(np.float32), 1)]
    seen = set()
    for psf in psfs:
        quality = quality_for([psfs[15], psf])
        assert (quality.cut, quality.matrix) == plain_quality(psf)
        seen.add((quality.cut, quality.matrix))
    assert len(seen) > 4


def packed() -> tuple[Packed, AbstractPSF]:
    """Two stamps of one source, as they go into a program."""
    data = np.random.default_rng(5).normal(size=(2, 2, 20, 20)).astype(np.float32)
    prepare = Preparation(0.0, 1, False, 1.5, (24,))
    blends = [blend_of_arrays(d, np.ones(2), PSF, [[9.0, 10.0]]) for d in data]
    tasks = [prepare.task(blend, np.array([1])) for blend in blends]
    return pack_tasks(tasks, tasks[0].bucket, 4)


def test_a_program_is_traced_once():
    tasks, psfs = packed()
    turns = []

    def one(task, psf):
        turns.append(task)
        return {"sum": task.data.sum(), "fwhm": psf.fwhm}

    found = jax.jit(lambda t, p, n: in_turn(one, t, p, n))(tasks, psfs, np.int32(2))
    assert len(turns) == 1
    np.testing.assert_allclose(found["sum"][:2], tasks.data[:2].sum(axis=(1, 2, 3)), rtol=1e-4)
    assert found["sum"][2:].tolist() == [0, 0]
    np.testing.assert_array_equal(found["fwhm"][:2], np.tile(PSF.fwhm, (2, 1)))


@pytest.mark.parametrize("background", ["none", "linear"])
def test_nothing_known_has_the_shapes_of_what_will_be(background):
    tasks, _ = packed()
    task = jax.tree.map(lambda leaf: leaf[0], tasks)
    task = task._replace(sky=np.zeros((2, {"none": 0, "linear": 3}[background]), np.float32))
    quality = quality_for([PSF])

    def before_and_after(task: Packed):
        start, prior = start_of(task, Setup(quality, background))
        free = free_numbers(start, None)
        problem = make_problem(task.data, task.weight, PSF, free, prior, quality)
        unknowns, fixed = unknowns_of(start), fixed_terms(start, problem)
        known = unevaluated(unknowns, start, problem)
        return known, evaluate(unknowns, start, problem, fixed, False)

    before, after = jax.eval_shape(before_and_after, task)
    assert jax.tree.structure(before) == jax.tree.structure(after)
    for known, found in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert (known.shape, known.dtype, known.weak_type) == (found.shape, found.dtype, False)
