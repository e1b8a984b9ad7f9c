"""A small set of blends, something that measured it, and every number worked out again by hand."""

import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from astropy.table import Table

from diffdeblend.score import fluxes, images
from diffdeblend.score.apertures import Aperture
from diffdeblend.score.matching import match, match_rows
from diffdeblend.score.score import score, score_all
from diffdeblend.score.scores_file import read_scores, write_scores
from diffdeblend.score.summary import binned, rank_average_precision, scores_table
from diffdeblend.score.targets import AllBands
from diffdeblend.score.uncertainty import Bootstrap

BANDS = ("g", "r")
N_SOURCES = (2, 3, 0, 1, 2, 3, 1, 2)
SHAPE = (31, 37)
SKY = np.array([30.0, 50.0])


@dataclass(frozen=True, eq=False)
class Blends:
    """A set of blends as a simulation gives it."""

    images: Any
    isolated: Any
    truth: Table
    psf_images: Any
    psf_index: Any
    sky: Any
    bands: tuple[str, ...] = BANDS


@dataclass(frozen=True, eq=False)
class Measured:
    """What a measure function gives for a blend."""

    catalog: Table
    segmentation: Any = None
    images: Any = None


def make_blends(seed=0):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    isolated, rows = np.zeros((sum(N_SOURCES), 2, *SHAPE), np.float32), []
    for i, n in enumerate(N_SOURCES):
        for k in range(n):
            # A grid keeps sources apart by more than they are moved.
            cx, cy = 8.3 + 10 * k + rng.uniform(-2, 2), 15.1 + rng.uniform(-6, 6)
            radius, bright = rng.uniform(1.5, 3), rng.uniform(2e3, 2e4)
            flux = bright * np.array([rng.uniform(0.3, 0.9), 1.0])
            blob = np.exp(-0.5 * ((x - cx) ** 2 + (y - cy) ** 2) / radius**2)
            isolated[len(rows)] = flux[:, None, None] * blob / (2 * np.pi * radius**2)
            rows.append((i, k, cx, cy, 0.2 * (cx - 18), 0.2 * (cy - 15), radius, *flux))
    names = ("blend", "source", "x", "y", "ra", "dec", "radius", "flux_g", "flux_r")
    truth = Table(rows=rows, names=names)
    for band in BANDS:
        truth[f"magnitude_{band}"] = 28 - 2.5 * np.log10(truth[f"flux_{band}"])
    truth["outside"] = False
    noise = rng.normal(size=(len(N_SOURCES), 2, *SHAPE)) * np.sqrt(SKY)[:, None, None]
    psfs = np.arange(1.0, 3)[:, None, None, None] * np.ones((2, 2, 5, 5))
    light = [isolated[np.asarray(truth["blend"]) == i].sum(axis=0) for i in range(len(N_SOURCES))]
    return Blends(
        np.array(light) + noise, isolated, truth, psfs, np.arange(len(N_SOURCES)) % 2, SKY
    )


def measure(blends, seed=1, every=4):
    """Loses every fourth source, shuffles the others, and finds something false now and then."""
    rng = np.random.default_rng(seed)
    found, place = [], 0
    for i in range(len(blends.images)):
        own = blends.truth[blends.truth["blend"] == i]
        kept = [k for k in range(len(own)) if (place + k) % every]
        stamps = blends.isolated[place : place + len(own)]
        place += len(own)
        rng.shuffle(kept)
        rows, seen = [], []
        for k in kept:
            factor = 1 + 0.1 * rng.normal()
            rows.append(
                (
                    own["x"][k] + rng.uniform(-1, 1),
                    own["y"][k] + rng.uniform(-1, 1),
                    own["flux_r"][k] * factor,
                    0.1 * own["flux_r"][k],
                    own["flux_g"][k] * (factor + 0.05),
                )
            )
            seen.append(stamps[k] * np.float32(factor) + np.float32(rng.uniform(0, 1)))
        if i % 3 == 0:
            rows.append((1.0, 1.0, 100.0, 50.0, 80.0))
            seen.append(np.zeros((2, *SHAPE), np.float32))
        if not rows:
            found.append(Measured(Table()))
            continue
        catalog = Table(rows=rows, names=("x", "y", "flux_r", "flux_err_r", "flux_g"))
        stack = np.array(seen)
        found.append(Measured(catalog, stack[:, 1] > 25, stack))
    return found


@pytest.fixture(scope="module")
def blends():
    return make_blends()


@pytest.fixture(scope="module")
def measured(blends):
    return measure(blends)


@pytest.fixture(scope="module")
def scores(blends, measured):
    return score(blends, measured, draws=100, target_measures={"light": total, "core": core})


def total(image, psf, x, y):
    return image.sum()


def core(image, psf, x, y):
    return Aperture(3.0, 4.0)(image, psf, x, y)


def test_every_source_is_worked_out_again(blends, measured, scores):
    table = scores.per_source
    assert len(table) == sum(N_SOURCES)
    n_lost = 0
    for place, row in enumerate(table):
        i, k = row["blend"], row["source"]
        own = blends.truth[blends.truth["blend"] == i]
        true, catalog = blends.isolated[place, 1], measured[i].catalog
        others = [np.hypot(row["x"] - o["x"], row["y"] - o["y"]) for o in own if o["source"] != k]
        assert row["distance_closest_galaxy"] == pytest.approx(min(others, default=np.inf))
        stamps = blends.isolated[blends.truth["blend"] == i, 1].astype(float)
        assert row["blendedness"] == pytest.approx(images.blendedness(stamps)[k])
        assert row["snr"] == pytest.approx(images.snr(true, SKY[1]))
        assert (row["magnitude"], row["size"]) == (row["magnitude_r"], row["radius"])
        assert row["light_true"] == pytest.approx(true.sum())
        flux, error = Aperture(3.0, 4.0)(true, None, row["x"], row["y"])
        assert (row["core0_true"], row["core1_true"]) == pytest.approx((flux, error))
        if not row["detected"]:
            n_lost += 1
            assert row["found"] == -1
            for name in ("distance_detection", "rmse", "psnr", "ssim", "iou", "flux_error_r"):
                assert np.isnan(row[name])
            for name in ("pull_r", "colour_error_g_r", "light", "core0", "found_flux_r"):
                assert np.isnan(row[name])
            continue
        found, at = measured[i].images[row["found"], 1], catalog[row["found"]]
        assert row["distance_detection"] == np.hypot(row["x"] - at["x"], row["y"] - at["y"])
        assert row["distance_detection"] < 1.5
        d = found.astype(float) - true
        assert row["msr"] == pytest.approx(np.mean(d**2))
        assert row["rmse"] == pytest.approx(np.sqrt(np.mean(d**2)))
        assert row["psnr"] == pytest.approx(10 * np.log10(true.max() ** 2 / np.mean(d**2)))
        assert row["ssim"] == pytest.approx(images.ssim(true.astype(float), found), abs=1e-6)
        a, b = true > 3 * np.sqrt(SKY[1]), found > 25
        assert row["iou"] == np.sum(a & b) / np.sum(a | b)
        assert row["flux_error_r"] == pytest.approx(at["flux_r"] / row["flux_r"] - 1)
        pull = (at["flux_r"] - row["flux_r"]) / at["flux_err_r"]
        assert row["pull_r"] == pytest.approx(pull)
        colour = at["flux_g"] / at["flux_r"] * row["flux_r"] / row["flux_g"]
        assert row["colour_error_g_r"] == pytest.approx(-2.5 * np.log10(colour))
        assert row["light"] == pytest.approx(found.sum())
        assert row["core0"] == pytest.approx(core(found, None, at["x"], at["y"])[0])
    assert n_lost == 4
    # Errors in g were not measured.
    assert "pull_g" not in table.colnames
    assert "flux_error_g" in table.colnames


def test_counts_are_pooled(measured, scores):
    n_found = sum(len(found.catalog) for found in measured)
    assert (scores.counts.matched, scores.counts.found) == (10, n_found)
    assert scores.value("recall") == 10 / 14
    assert scores.value("precision") == 10 / n_found == pytest.approx(10 / 13)
    assert scores.value("f1") == pytest.approx(20 / (14 + n_found))
    matrix = scores.efficiency()
    assert matrix.sum() == len(N_SOURCES)
    assert matrix.sum(axis=0).tolist() == [N_SOURCES.count(n) for n in range(4)]
    assert matrix[0, 0] == 1
    assert scores.efficiency(normalized=True).sum(axis=0).tolist() == [1, 1, 1, 1]


def test_pairs_can_be_had_again(blends, measured, scores):
    for i, matching in enumerate(scores.matches):
        own, catalog = blends.truth[blends.truth["blend"] == i], measured[i].catalog
        found = [] if not len(catalog) else np.stack([catalog["x"], catalog["y"]], axis=1)
        again = match(np.stack([own["x"], own["y"]], axis=1), found)
        assert matching.truth_index.tolist() == again.truth_index.tolist()
        assert matching.found_index.tolist() == again.found_index.tolist()
        assert matching.distance.tolist() == again.distance.tolist()
        assert (matching.n_truth, matching.n_found) == (again.n_truth, again.n_found)
    false = scores.detections[~scores.detections["matched"]]
    assert false["x"].tolist() == [1, 1, 1]
    assert false["blend"].tolist() == [0, 3, 6]
    assert (false["source"] == -1).all()


def test_summary_is_pooled_and_counts_what_is_lost(scores):
    rows = {row["metric"]: row for row in scores.summary}
    table = scores.per_source
    error = np.asarray(table["flux_error_r"])
    found = error[np.isfinite(error)]
    assert rows["flux_bias_r"]["value"] == np.median(found)
    low, high = np.quantile(found, [0.16, 0.84])
    assert rows["flux_scatter_r"]["value"] == pytest.approx((high - low) / 2)
    assert (rows["flux_bias_r"]["n"], rows["flux_bias_r"]["lost"]) == (10, 4)
    # What is lost has an error of -1.
    every = np.abs(np.where(np.isfinite(error), error, -1))
    assert rows["flux_abs_error_r"]["value"] == np.median(every)
    assert (rows["flux_abs_error_r"]["n"], rows["flux_abs_error_r"]["lost"]) == (14, 0)
    assert rows["flux_gross_r"]["value"] == 4 / 14
    pull = np.asarray(table["pull_r"])[np.isfinite(error)]
    assert rows["pull_mean_r"]["value"] == pytest.approx(pull.mean())
    assert rows["pull_std_r"]["value"] == pytest.approx(pull.std())
    again = Bootstrap(len(N_SOURCES), draws=100).statistic(
        lambda drawn: float(np.nanstd(table["pull_r"][drawn])), np.asarray(table["blend"])
    )
    assert (rows["pull_std_r"]["low"], rows["pull_std_r"]["high"]) == pytest.approx(again)
    assert rows["coverage1_r"]["value"] == np.mean(np.abs(pull) <= 1)
    assert rows["coverage2_r"]["value"] == fluxes.coverage(pull, 2)
    assert rows["psnr"]["value"] == np.nanmedian(table["psnr"])
    assert rows["psnr"]["lost"] == 4
    assert rows["light_bias"]["value"] == np.nanmedian(table["light"] - table["light_true"])
    for name in ("recall", "precision", "flux_bias_r", "psnr", "pull_std_r", "core0_scatter"):
        assert rows[name]["low"] <= rows[name]["value"] <= rows[name]["high"], name
    assert rows["recall"]["low"] < rows["recall"]["high"]
    with pytest.raises(ValueError, match="`metric` must be one of"):
        scores.value("auc")


def test_only_some_sources_count(blends, measured, scores):
    bright = np.asarray(scores.per_source["snr"]) > np.median(scores.per_source["snr"])
    chosen = scores.judging(bright)
    detected = np.asarray(scores.per_source["detected"])
    assert chosen.counts.truth == bright.sum()
    assert chosen.counts.matched == np.sum(bright & detected)
    # The false ones stay; those of faint sources are neither right nor wrong.
    assert chosen.counts.found == np.sum(bright & detected) + 3
    assert chosen.value("psnr") == np.nanmedian(scores.per_source["psnr"][bright])
    assert scores.counts.truth == 14
    # By the truth alone, beforehand, it is the same.
    again = score(blends, measured, draws=100, judged=bright)
    assert again.counts == chosen.counts
    assert again.value("recall") == chosen.value("recall")


def test_source_beyond_the_stamp_does_not_count(blends, measured):
    truth = blends.truth.copy()
    truth["outside"][0] = True
    # The loop of `measure` lost it, so look at the next, which was found.
    truth["outside"][1] = True
    result = score(replace(blends, truth=truth), measured, draws=0)
    assert result.counts.truth == 12
    assert result.counts.matched == 9
    assert result.counts.found == 12
    assert np.isfinite(result.per_source["rmse"][1])


def test_nothing_found_is_defined(blends):
    nothing = [Measured(Table())] * len(N_SOURCES)
    result = score(blends, nothing, draws=20)
    assert (result.value("precision"), result.value("recall"), result.value("f1")) == (0, 0, 0)
    assert np.isnan(result.value("psnr"))
    assert len(result.detections) == 0
    assert result.efficiency().tolist() == [[1, 2, 3, 2]]
    table = binned(result, "magnitude", 2)
    assert table["lost"].sum() == 14
    assert (table["recall"] == 0).all()
    # No sources either.
    empty = replace(
        blends, images=blends.images[2:3], isolated=blends.isolated[:0], truth=blends.truth[:0]
    )
    result = score(empty, nothing[:1], target_measures={"light": total})
    assert (result.value("precision"), result.value("recall"), result.value("f1")) == (1, 1, 1)
    assert {"light", "light_true"} <= set(result.per_source.colnames)


def test_catalogue_alone_is_scored(blends, measured):
    bare = [replace(found, images=None, segmentation=None) for found in measured]
    result = score(blends, bare, draws=0, target_measures={"light": total})
    assert result.value("recall") == 10 / 14
    assert np.isnan(result.per_source["psnr"]).all()
    assert np.isnan(result.per_source["light"]).all()
    assert np.isfinite(result.per_source["light_true"]).all()
    assert np.isfinite(result.value("flux_bias_r"))


def test_images_of_one_band_are_of_the_band_of_the_scores(blends, measured, scores):
    one = [
        found if found.images is None else replace(found, images=found.images[:, 1:])
        for found in measured
    ]
    result = score(blends, one, draws=0, target_measures={"light": total})
    for name in ("psnr", "light", "light_true"):
        assert np.array_equal(result.per_source[name], scores.per_source[name], equal_nan=True)


def test_what_the_truth_knows_is_taken(blends, measured):
    truth = blends.truth.copy()
    truth["snr_r"], truth["blendedness_r"] = np.arange(14.0), np.arange(14.0) / 20
    table = score(replace(blends, truth=truth), measured, draws=0).per_source
    assert table["snr"].tolist() == truth["snr_r"].tolist()
    assert table["blendedness"].tolist() == truth["blendedness_r"].tolist()


def test_masked_values_are_not_measured(blends, measured):
    catalog = Table(measured[1].catalog, masked=True)
    catalog["flux_r"].mask[0] = True
    some = [*measured[:1], replace(measured[1], catalog=catalog), *measured[2:]]
    result = score(blends, some, draws=0)
    own = result.per_source[(result.per_source["blend"] == 1) & (result.per_source["found"] == 0)]
    assert np.isnan(own["found_flux_r"][0])
    assert own["detected"][0]


def test_target_measures_see_position_psf_and_bands(blends, measured):
    seen = []

    def look(image, psf, x, y):
        seen.append((image.shape, psf.shape, float(psf.flat[0]), x, y))
        return x, y

    def colour(image, psf, x, y):
        assert psf.shape == (2, 5, 5)
        return image[0].sum() / image[1].sum()

    chosen = {"at": look, "ratio": AllBands(colour)}
    table = score(blends, measured, draws=0, target_measures=chosen).per_source
    assert {shape for shape, *_ in seen} == {SHAPE}
    assert {shape for _, shape, *_ in seen} == {(5, 5)}
    assert np.array_equal(table["at0_true"], table["x"])
    assert np.array_equal(table["at1_true"], table["y"])
    found = table[table["detected"]]
    apart = np.hypot(found["at0"] - found["x"], found["at1"] - found["y"])
    np.testing.assert_allclose(apart, found["distance_detection"])
    expected = found["flux_g"] / found["flux_r"]
    np.testing.assert_allclose(found["ratio_true"], expected, rtol=0.05)
    # The PSF of each blend is that of its group.
    by_x = {x: value for _, _, value, x, _ in seen}
    assert [by_x[x] for x in table["x"]] == (table["blend"] % 2 + 1).tolist()


def test_pairing_can_be_told(blends):
    # Row for row, though two are exchanged and a third is far.
    rows = blends.truth[blends.truth["blend"] == 1]
    catalog = Table({"x": rows["x"][[1, 0, 2]], "y": rows["y"][[1, 0, 2]] + [0, 0, 9]})
    found = [Measured(Table())] * len(N_SOURCES)
    found[1] = Measured(catalog)
    by_row = score(blends, found, draws=0, matcher=match_rows).per_source
    near = score(blends, found, draws=0).per_source
    far = score(blends, found, draws=0, max_distance=10.0).per_source
    assert by_row["found"][2:5].tolist() == [0, 1, 2]
    assert near["found"][2:5].tolist() == [1, 0, -1]
    assert far["found"][2:5].tolist() == [1, 0, 2]


def test_other_coordinates_and_distances(blends, measured):
    def on_the_sky(found):
        if not len(found.catalog):
            return found
        catalog = found.catalog.copy()
        catalog["ra"], catalog["dec"] = 0.2 * (catalog["x"] - 18), 0.2 * (catalog["y"] - 15)
        return replace(found, catalog=catalog)

    result = score(
        blends,
        [on_the_sky(found) for found in measured],
        draws=0,
        coordinates=("ra", "dec"),
        max_distance=1.0,
        distance=lambda a, b: np.abs(a[:, None] - b[None]).max(axis=-1),
    )
    assert result.counts.matched == 10
    assert np.nanmax(result.per_source["distance_detection"]) <= 0.2
    with pytest.raises(ValueError, match=r"`measured\[0\].catalog` needs columns \('ra', 'dec'\)"):
        score(blends, measured, coordinates=("ra", "dec"))


def test_noise_factor_and_old_figures(blends, measured):
    loose = score(blends, measured, draws=0, noise_factor=0.5, btk=True).per_source
    strict = score(blends, measured, draws=0).per_source
    assert (loose["iou"] < strict["iou"])[loose["detected"]].any()
    for place in np.flatnonzero(loose["detected"])[:4]:
        row, t = loose[place], blends.isolated[place, 1]
        p = measured[row["blend"]].images[row["found"], 1]
        assert row["psnr_btk"] == pytest.approx(images.psnr(t, p, mode="btk"))
        assert row["ssim_btk"] == pytest.approx(images.ssim(t, p, mode="btk"))
    assert "psnr_btk" not in strict.colnames


def test_bins(scores):
    table = scores.per_source
    snr = np.asarray(table["snr"])
    edges = [snr.min() - 1, np.median(snr), snr.max()]
    result = binned(scores, "snr", edges)
    assert result["n"].sum() == 14
    assert result.meta == {"by": "snr", "outside": 0}
    for row, inside in zip(result, (snr < edges[1], snr >= edges[1]), strict=True):
        assert row["n"] == inside.sum()
        assert row["recall"] == np.mean(table["detected"][inside])
        assert row["lost"] == np.sum(~table["detected"][inside])
        assert row["middle"] == np.median(snr[inside])
        error = np.asarray(table["flux_error_r"])[inside]
        assert row["flux_error_r"] == np.nanmedian(error)
        low, high = np.nanquantile(error, [0.16, 0.84])
        assert row["flux_error_r_scatter"] == pytest.approx((high - low) / 2)
        assert row["flux_error_r_n"] == np.isfinite(error).sum()
        assert row["flux_error_r_low"] <= row["flux_error_r"] <= row["flux_error_r_high"]
    assert binned(scores, "snr", [snr.min(), np.median(snr)])["n"].tolist() == [7]
    assert binned(scores, "snr", [snr.min(), np.median(snr)]).meta["outside"] == 7
    assert binned(scores, "blendedness", 7, ["psnr"])["n"].tolist() == [2] * 7
    for by in ("magnitude", "size", "distance_closest_galaxy"):
        assert binned(scores, by, 3, []).meta["by"] == by
    with pytest.raises(ValueError, match="`by` must be a column of numbers"):
        binned(scores, "colour")
    with pytest.raises(ValueError, match="`columns` must be a column of numbers"):
        binned(scores, "snr", 3, ["nothing"])
    with pytest.raises(ValueError, match="`bins` needs at least two rising edges"):
        binned(scores, "snr", [3, 2])


def test_several_side_by_side(blends, measured):
    worse = measure(blends, seed=2, every=2)
    both = score_all(blends, {"first": measured, "second": worse}, draws=50)
    table = scores_table(both)
    assert table["measure"].tolist() == ["first", "second"]
    assert table["recall"].tolist() == [10 / 14, 7 / 14]
    assert table["psnr"][1] == both["second"].value("psnr")
    assert {"flux_bias_r", "flux_bias_r_low", "flux_bias_r_high"} <= set(table.colnames)
    short = scores_table(both, ["flux_scatter_g", "recall"], intervals=False)
    assert short.colnames == ["measure", "flux_scatter_g", "recall"]
    with pytest.raises(ValueError, match="`metrics` must be of"):
        scores_table(both, ["auc"])


def test_average_precision_in_order_of_flux(scores):
    found = scores.detections
    order = np.argsort(-np.asarray(found["flux_r"]))
    matched = np.asarray(found["matched"])[order]
    gain = [matched[: i + 1].mean() / 14 for i in range(len(found)) if matched[i]]
    assert rank_average_precision(scores) == pytest.approx(sum(gain))
    with pytest.raises(ValueError, match="`rank` must be one of the columns"):
        rank_average_precision(scores, "snr")


def same(first, second):
    assert first.colnames == second.colnames
    for name in first.colnames:
        a, b = first[name], second[name]
        assert a.dtype == b.dtype
        assert a.unit == b.unit
        assert type(a) is type(b)
        np.testing.assert_array_equal(np.ma.getmaskarray(a), np.ma.getmaskarray(b))
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_file_holds_everything(blends, measured, scores, tmp_path):
    truth = blends.truth.copy()
    truth["name"] = [f"é{i}" for i in range(len(truth))]
    truth["radius"].unit = "arcsec"
    truth["redshift"] = np.ma.array(np.arange(14.0), mask=np.arange(14) % 5 == 0)
    named = score(replace(blends, truth=truth), measured, draws=10)
    empty = score(blends, [Measured(Table())] * len(N_SOURCES), draws=0)
    written = {"a/b": scores, "naïve": named, "nothing": empty}
    path = tmp_path / "scores.npz"
    write_scores(written, path)
    again = read_scores(path)
    assert list(again) == list(written)
    for name, one in written.items():
        assert again[name].settings == one.settings
        for table in ("per_source", "detections", "summary"):
            same(getattr(again[name], table), getattr(one, table))
    # They can be used, too.
    assert again["a/b"].counts == scores.counts
    bright = np.asarray(scores.per_source["snr"]) > 40
    same(again["a/b"].judging(bright).summary, scores.judging(bright).summary)
    assert [p.name for p in tmp_path.iterdir()] == ["scores.npz"]


def test_file_that_is_spoilt_is_refused(scores, tmp_path):
    path = tmp_path / "scores.npz"
    write_scores({"one": scores}, path)
    whole = path.read_bytes()
    for size in (0, 1, 100, len(whole) // 2, len(whole) - 30, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="`path` needs a whole file of diffdeblend scores"):
            read_scores(path)
    path.write_bytes(whole[:300] + bytes(200) + whole[500:])
    with pytest.raises(ValueError, match="`path` needs a whole file of diffdeblend scores"):
        read_scores(path)
    head = {"format": "diffdeblend scores", "version": 2, "scores": []}
    np.savez(path, head=np.array(json.dumps(head)))
    with pytest.raises(ValueError, match=r"version 1; .* version 2"):
        read_scores(path)
    np.savez(path, image=np.zeros(3))
    with pytest.raises(ValueError, match="`path` needs a whole file of diffdeblend scores"):
        read_scores(path)
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(ValueError, match="`path` needs a whole file of diffdeblend scores"):
        read_scores(tmp_path / "array.npy")
    with pytest.raises(FileNotFoundError):
        read_scores(tmp_path / "none.npz")


def test_file_that_cannot_be_written_leaves_nothing(scores, tmp_path):
    spoilt = replace(scores, per_source=scores.per_source.copy())
    spoilt.per_source["object"] = np.array([{}] * 14, dtype=object)
    with pytest.raises(ValueError, match="column 'object' cannot be written"):
        write_scores({"one": spoilt}, tmp_path / "scores.npz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"band": "i"}, r"`band` must be one of \('g', 'r'\); got 'i'"),
        ({"colours": [("g", "z")]}, "`colours` needs pairs of bands"),
        ({"judged": np.ones(3, bool)}, "`judged` needs 14 booleans"),
        ({"judged": np.ones(14)}, "`judged` needs 14 booleans"),
        ({"max_distance": -1.0}, "`max_distance` must be positive"),
        ({"target_measures": {"light": 3}}, "`target_measures` needs functions"),
        ({"target_measures": {"psnr": total}}, "`target_measures` must not be named as the column"),
        (
            {"target_measures": {"many": lambda image, psf, x, y: np.zeros(int(x) % 3)}},
            "`target_measures` 'many' must return one number, or always as many",
        ),
        ({"draws": -1}, "`draws` must be at least 0"),
    ],
)
def test_what_makes_no_sense_is_refused(blends, measured, change, message):
    with pytest.raises(ValueError, match=message):
        score(blends, measured, **change)


def test_what_does_not_belong_together_is_refused(blends, measured):
    with pytest.raises(ValueError, match="`measured` needs one entry for 8 blends; got 7"):
        score(blends, measured[:-1])
    with pytest.raises(ValueError, match="`blends` needs isolated images"):
        score(replace(blends, isolated=None), measured)
    with pytest.raises(ValueError, match="`blends` needs a truth sorted by blend"):
        score(replace(blends, truth=blends.truth[::-1]), measured)
    with pytest.raises(ValueError, match=r"`blends.isolated` needs shape \(14, 2, 31, 37\)"):
        score(replace(blends, isolated=blends.isolated[:, :1]), measured)
    for name, message in (("images", r"\(3, 2, 31, 37\)"), ("segmentation", r"\(3, 31, 37\)")):
        first = replace(measured[0], **{name: getattr(measured[0], name)[:1]})
        message = message.replace("3, ", f"{len(measured[0].catalog)}, ", 1)
        with pytest.raises(ValueError, match=rf"`measured\[0\].{name}` needs shape {message}"):
            score(blends, [first, *measured[1:]])
    nameless = Measured(Table({"ra": [1.0]}))
    with pytest.raises(ValueError, match=r"`measured\[0\].catalog` needs columns \('x', 'y'\)"):
        score(blends, [nameless, *measured[1:]])
