"""Stores of stamps: what is written is read, what is broken is found before any work."""

import json
import os
import re
import shutil
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffdeblend.stamps import StampWriter, make_stamps, open_store, write_stamps, write_store
from diffdeblend.stamps import check_store as checks
from diffdeblend.stamps.layout import CHUNK, OPTIONAL, PSF, REQUIRED, SHARD, VERSION
from diffdeblend.stamps.stamps import Stamps

N = SHARD + 200
PSFS = 5


def psf_images(n=PSFS, bands=2, size=5):
    rng = np.random.default_rng(8)
    images = rng.uniform(0.1, 1, (n, bands, size, size))
    return images / images.sum(axis=(2, 3), keepdims=True)


def stamps_of(n=N, size=4, seed=1, **more):
    """Stamps of noise with up to three sources each, and all there can be in a store."""
    rng = np.random.default_rng(seed)
    count = rng.integers(0, 4, n)
    position = np.where(
        np.arange(3)[:, None] < count[:, None, None], rng.uniform(0, 3, (n, 3, 2)), np.nan
    )
    given = {
        "image": rng.normal(size=(n, 2, size, size)),
        "variance": rng.uniform(1, 2, (n, 2, size, size)),
        "psf": psf_images(),
        "position": position,
        "bands": ("g", "r"),
        "mask": rng.integers(0, 2, (n, size, size)).astype(bool),
        "psf_index": rng.integers(0, PSFS, n),
        "id": 7 * np.arange(n) - 3,
        "ra": rng.uniform(0, 360, n),
        "dec": rng.uniform(-90, 90, n),
        "cd": rng.normal(size=(n, 2, 2)),
        "crowded": rng.integers(0, 2, n).astype(bool),
        "truth": {"flux_r": position[..., 0] * 100},
        "pixel_scale": 0.2,
        "zero_points": 30.0,
        "unit": "nJy" if more.pop("nanojansky", False) else "",
    }
    return make_stamps(**{**given, **more})


def same(one, other):
    """That two runs hold the same stamps; PSFs by their images, whatever their keys."""
    for field in fields(Stamps):
        own, theirs = getattr(one, field.name), getattr(other, field.name)
        if field.name in ("psf", "psf_index", "psf_key", "first"):
            continue
        if isinstance(own, dict):
            assert own.keys() == theirs.keys()
            for name in own:
                np.testing.assert_array_equal(own[name], theirs[name], strict=True)
        else:
            np.testing.assert_array_equal(own, theirs)
    np.testing.assert_array_equal(one.psf[one.psf_index], other.psf[other.psf_index], strict=True)


@pytest.fixture(scope="module")
def stamps():
    return stamps_of()


@pytest.fixture(scope="module")
def sound(tmp_path_factory, stamps):
    """A store, not to be changed."""
    return write_stamps(*stamps, tmp_path_factory.mktemp("sound") / "stamps.zarr")


@pytest.fixture(scope="module")
def opened(sound):
    return open_store(sound)


@pytest.fixture
def broken(sound, tmp_path):
    """A copy that may be broken."""
    return shutil.copytree(sound, tmp_path / "broken.zarr")


@given(data=st.data())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_any_run_is_read_as_written(opened, stamps, data):
    start = data.draw(st.integers(0, N))
    stop = data.draw(st.integers(start, N))
    found = opened.read(start, stop)
    assert found.first == start
    same(found, stamps[0].part(start, stop))
    assert len(set(found.psf_key.tolist())) == len(found.psf)


@given(
    cuts=st.lists(st.integers(0, N), max_size=6).map(sorted),
    closed=st.sets(st.integers(0, 6)),
)
@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_writing_in_any_runs_is_the_same_store(opened, stamps, tmp_path, cuts, closed):
    """However stamps come, and wherever the writing was left off."""
    whole, header = stamps
    path = tmp_path / "runs.zarr"
    shutil.rmtree(path, ignore_errors=True)
    writer = StampWriter(path, header)
    for number, (start, stop) in enumerate(zip([0, *cuts], [*cuts, N], strict=True)):
        writer.append(whole.part(start, stop))
        assert writer.n_stamps == stop
        if number in closed:
            writer.close()
            writer = StampWriter(path, header, append=True)
    writer.close()
    found = open_store(path)
    assert found.header == opened.header
    same(found.read(0, N), whole)
    # PSFs that come again are not written again.
    assert len(found.read(0, N).psf) == PSFS
    assert found.psfs_at([0, N - 1])[0].tolist() == sorted(
        {int(found.read(k, k + 1).psf_key[0]) for k in (0, N - 1)}
    )


def test_the_header_comes_back(opened, stamps):
    _, header = stamps
    assert opened.header == header
    assert header.zero_points == (30.0, 30.0)
    keys, images = opened.psfs_at([700, 3, 700])
    wanted = np.unique(stamps[0].psf_index[[700, 3]])
    np.testing.assert_array_equal(images, stamps[0].psf[wanted])
    assert len(keys) == len(wanted)
    with pytest.raises(ValueError, match=f"`places` must be between 0 and {N - 1}"):
        opened.psfs_at([N])


def test_an_interrupted_writing_opens_and_goes_on(stamps, tmp_path):
    whole, header = stamps
    path = tmp_path / "stamps.zarr"
    writer = StampWriter(path, header, attributes={"command": {"seed": 3}})
    with pytest.raises(ValueError, match="holds no stamps yet"):
        open_store(path)
    writer.append(whole.part(0, SHARD + 10))
    # What an interruption leaves: rows that are written and not said to be finished.
    half = StampWriter(path, header, append=True)
    half._put("image", np.ones((50, 2, 4, 4), np.float32), SHARD)
    found = open_store(path)
    assert found.header.n_stamps == SHARD
    same(found.read(0, SHARD), whole.part(0, SHARD))
    with StampWriter(path, header, append=True) as again:
        assert again.n_stamps == SHARD
        again.append(whole.part(SHARD, N))
    same(open_store(path).read(0, N), whole)
    assert zarr.open_group(str(path), mode="r").attrs["command"] == {"seed": 3}


def test_an_error_between_keeps_what_was_given(stamps, tmp_path):
    whole, header = stamps
    writer = StampWriter(tmp_path / "s.zarr", header)
    writer.append(whole.part(0, 30))
    with pytest.raises(ValueError, match="`stamps` have"), writer:
        writer.append(replace(whole.part(0, 9), mask=None))
    assert open_store(tmp_path / "s.zarr").header.n_stamps == 30


def test_stamps_with_more_sources_widen_the_store(tmp_path):
    few, header = stamps_of(10, position=np.ones((10, 1, 2)), truth=None)
    many, _ = stamps_of(5, position=np.full((5, 6, 2), 2.0), truth=None, id=100 + np.arange(5))
    path = tmp_path / "s.zarr"
    with StampWriter(path, header) as writer:
        writer.append(few)
    for more in (many, replace(few, id=few.id + 1000)):
        with StampWriter(path, header, append=True) as writer:
            writer.append(more)
    found = open_store(path)
    assert found.header.most_sources == 6
    assert found.read(0, 25).n_sources().tolist() == [1] * 10 + [6] * 5 + [1] * 10
    assert (found.read(0, 10).source_id[:, 1:] == 0).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mask": None}, "`stamps` have the arrays"),
        ({"psf": psf_images(PSFS, 2, 7)}, "`stamps` have `psf` of shape"),
        ({"image": np.ones((9, 1, 4, 4))}, "`stamps` have 1 bands"),
    ],
)
def test_a_writer_refuses_other_stamps(stamps, tmp_path, change, words):
    whole, header = stamps
    with StampWriter(tmp_path / "s.zarr", header) as writer:
        writer.append(whole.part(0, 9))
        with pytest.raises(ValueError, match=words):
            writer.append(replace(whole.part(0, 9), **change))


def test_a_writer_refuses_another_header(stamps, sound):
    _, header = stamps
    with pytest.raises(ValueError, match="exists; give another, or append=True"):
        StampWriter(sound, header)
    with pytest.raises(ValueError, match=r"`header` has `pixel_scale` 0\.3, and the store"):
        StampWriter(sound, replace(header, pixel_scale=0.3), append=True)


def attributes(path, **change):
    file = path / "zarr.json"
    known = json.loads(file.read_text())
    known["attributes"] |= change
    known["attributes"] = {k: v for k, v in known["attributes"].items() if v != "gone"}
    file.write_text(json.dumps(known))


def put(path, name, values):
    root = zarr.open_group(str(path), mode="r+")
    with zarr.config.set({"array.write_empty_chunks": True}):
        root.create_array(name, data=np.asarray(values), overwrite=True)


def shard(path, name="image", number=0):
    return next(iter((path / name / "c" / str(number)).rglob("0/0/0")))


def cut_file(path, share):
    file = shard(path)
    os.truncate(file, int(file.stat().st_size * share))


def lengthen(path):
    """The last chunk of a shard ends behind it, by the index alone."""
    content = bytearray(shard(path).read_bytes())
    index = np.frombuffer(content[-260:-4], "<u8").reshape(16, 2).copy()
    index[-1, 1] += 1
    content[-260:-4] = index.tobytes()
    shard(path).write_bytes(content)


BREAKS = {
    "index of a shard": (lengthen, "is cut short or damaged"),
    "an empty folder": (lambda p: (shutil.rmtree(p), p.mkdir()), "is no Zarr folder"),
    "nothing": (lambda p: shutil.rmtree(p), "there is no"),
    "a text file": (lambda p: (shutil.rmtree(p), p.write_text("x")), "is a file that is no FITS"),
    "format 2": (
        lambda p: (shutil.rmtree(p), zarr.open_group(str(p), mode="w", zarr_format=2)),
        "format 2; stores are of Zarr's format 3",
    ),
    "broken metadata": (lambda p: (p / "zarr.json").write_text("{"), "cannot be read"),
    "broken array metadata": (
        lambda p: (p / "image" / "zarr.json").write_text("{"),
        "has metadata that cannot be read",
    ),
    "blends": (lambda p: attributes(p, format="diffdeblend blends"), "with `--format stamps`"),
    "other format": (lambda p: attributes(p, format="x"), "attribute `format` 'x'"),
    "version": (lambda p: attributes(p, version=9), "of version 9 of its format"),
    "no bands": (lambda p: attributes(p, bands="gone"), "attribute `bands` None"),
    "same bands": (lambda p: attributes(p, bands=["g", "g"]), "list of different names"),
    "more bands": (lambda p: attributes(p, bands=["g", "r", "i"]), r"needs \(1224, 3, 4, 4\)"),
    "scale": (lambda p: attributes(p, pixel_scale=-1), "`pixel_scale` -1; it needs a positive"),
    "points": (lambda p: attributes(p, zero_points=[1]), "`zero_points` .1.; it needs 2 numbers"),
    "unit": (lambda p: attributes(p, unit=3), "attribute `unit` 3; it needs a text"),
    "noise": (
        lambda p: attributes(p, noise_correlation=[[[2.0, 1.0, 2.0]]] * 2),
        "is refused: `noise_correlation` must be largest at the centre",
    ),
    "oversampling": (lambda p: attributes(p, oversampling=0), "`oversampling` 0; it needs a whole"),
    "finished": (lambda p: attributes(p, finished=9999), "`finished` 9999, and arrays of only"),
    "empty": (lambda p: attributes(p, finished=0), "holds no stamps yet"),
    "no image": (lambda p: shutil.rmtree(p / "image"), "lacks the array `image`"),
    "no psf": (lambda p: shutil.rmtree(p / "psf"), "lacks the array `psf`"),
    "axes": (lambda p: put(p, "variance", np.ones(N)), r"`variance` of shape \(1224,\); it needs"),
    "sizes": (lambda p: put(p, "mask", np.zeros((N, 4, 5), "u1")), "by `image`"),
    "rows": (lambda p: put(p, "ra", np.zeros(9)), r"`ra` of shape \(9,\); it needs \(1224,\)"),
    "xy": (lambda p: put(p, "position", np.zeros((N, 3, 3))), r"needs \(1224, 3, 2\)"),
    "no room": (lambda p: put(p, "position", np.zeros((N, 0, 2))), "position|source"),
    "truth": (lambda p: put(p, "truth/x", np.zeros((N, 2))), "`truth/x` of shape"),
    "words": (lambda p: put(p, "id", np.zeros(N)), "`id` of float64; it needs whole numbers"),
    "whole image": (
        lambda p: put(p, "image", np.zeros((N, 2, 4, 4), "i4")),
        "`image` of int32; it needs float32 or float64",
    ),
    "even psf": (lambda p: put(p, "psf", np.ones((5, 2, 4, 5))), "4 x 5 pixels; .* must be odd"),
    "psf bands": (lambda p: put(p, "psf", np.ones((5, 3, 5, 5))), "with 2 bands"),
    "no index": (lambda p: shutil.rmtree(p / "psf_index"), "5 images for 1224 stamps"),
    "index": (
        lambda p: put(p, "psf_index", np.arange(N) // 200 - 1),
        "has -1 in array `psf_index` for stamp 0; .* below 5",
    ),
    "bad psfs": (lambda p: put(p, "psf", np.full((5, 2, 5, 5), np.nan)), "no image that is finite"),
    "dark psfs": (lambda p: put(p, "psf", np.zeros((5, 2, 5, 5))), "no image that is finite"),
    "ids": (
        lambda p: put(p, "id", np.arange(N) % 1200),
        "same id 0 in array `id` for stamps 0 and 1200",
    ),
    "large ids": (
        lambda p: put(p, "id", np.arange(N, dtype="u8") + np.uint64(2**63)),
        "must be below 2.63",
    ),
    "lost shard": (lambda p: shard(p).unlink(), "'c/0/0/0/0' of array `image`, for rows 0 to 1023"),
    "cut short": (lambda p: cut_file(p, 0.9), "is cut short or damaged"),
    "cut to little": (lambda p: os.truncate(shard(p), 9), "is cut short: it has 9 bytes"),
    "last byte": (lambda p: os.truncate(shard(p), shard(p).stat().st_size - 1), "cut short"),
    "zeros": (lambda p: shard(p).write_bytes(bytes(shard(p).stat().st_size)), "cut short or dam"),
    "ids unread": (
        lambda p: (p / "id/c/0").write_bytes(flipped(p / "id/c/0", 3)),
        "array `id`, rows 0 to 1223, cannot be read",
    ),
}


def flipped(file, place):
    content = bytearray(file.read_bytes())
    content[place] ^= 0xFF
    return bytes(content)


@pytest.mark.parametrize("kind", BREAKS)
def test_a_broken_store_is_refused_in_one_line(kind, broken):
    change, words = BREAKS[kind]
    change(broken)
    with pytest.raises(ValueError, match=words) as caught:
        open_store(broken)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("`store`: ")
    assert broken.name in str(caught.value)


def test_equal_ids_are_found_in_shares(broken, monkeypatch):
    """Ids in no order are compared a share at a time; equal ones meet in one."""
    ids = np.random.default_rng(3).permutation(N) * 64 - 500
    put(broken, "id", ids)
    monkeypatch.setattr(checks, "_COMPARED", 100)
    monkeypatch.setattr(checks, "_BLOCK", 128)
    open_store(broken)
    for first, second in ((0, N - 1), (5, 6), (130, 700)):
        again = ids.copy()
        again[second] = again[first]
        put(broken, "id", again)
        with pytest.raises(ValueError, match=f"for stamps {first} and {second}"):
            open_store(broken)


def test_a_store_of_other_tools_is_read(tmp_path, stamps):
    """Plain chunks, other numbers, a PSF a stamp, big-endian, no optional arrays."""
    rng = np.random.default_rng(4)
    n = 9
    path = tmp_path / "plain.zarr"
    root = zarr.open_group(str(path), mode="w", zarr_format=3)
    root.attrs.update({"format": "diffdeblend stamps", "version": 1, "bands": ["r"]})
    given = {
        "id": np.arange(n, dtype="i4"),
        "image": rng.normal(size=(n, 1, 6, 5)).astype(">f4"),
        "variance": np.ones((n, 1)),
        "position": rng.uniform(0, 4, (n, 2, 2)).astype("f4"),
        "psf": rng.uniform(size=(n, 1, 3, 3)),
    }
    for name, values in given.items():
        root.create_array(name, data=values, chunks=(4, *values.shape[1:]), compressors=None)
    store = open_store(path)
    found = store.read(3, 9)
    assert store.header.shape == (6, 5)
    assert store.header.pixel_scale is None
    np.testing.assert_array_equal(found.image, given["image"][3:])
    np.testing.assert_array_equal(found.psf[found.psf_index], given["psf"][3:])
    assert found.psf_key.tolist() == list(range(3, 9))
    assert found.source_id.tolist() == [[2 * k + 1, 2 * k + 2] for k in range(3, 9)]
    assert found.mask is None
    file = path / "image/c/1/0/0/0"
    before = store.fingerprint()
    file.write_bytes(flipped(file, 2))
    assert open_store(path).fingerprint() != before
    os.truncate(file, file.stat().st_size - 4)
    with pytest.raises(ValueError, match="array `image`, for rows 4 to 7, is cut short"):
        open_store(path)


@pytest.mark.parametrize("name", ["image", "variance", "mask", "position", "ra", "truth/flux_r"])
def test_a_damaged_chunk_loses_its_stamps_alone(name, broken, stamps):
    small = name in ("position", "ra", "truth/flux_r")
    file = min((broken / name / "c" / "0").rglob("*") if not small else [], default=None, key=str)
    file = (
        file
        if file and file.is_file()
        else next(
            f for f in [broken / name / "c/0", *(broken / name / "c").rglob("0")] if f.is_file()
        )
    )
    file.write_bytes(flipped(file, 30))
    store = open_store(broken, checked=True)
    chunk = (16 if small else 1) * CHUNK
    found = store.read(10, 1100)
    assert sorted(found.unreadable) == list(range(min(chunk, N) - 10))
    assert f"`{name}` cannot be read" in found.unreadable[0]
    whole = stamps[0].part(10, 1100)
    np.testing.assert_array_equal(found.id, whole.id)
    same(replace(found.part(chunk - 10, 1090), unreadable={}), whole.part(chunk - 10, 1090))
    lost = found.part(0, 1)
    values = lost.truth["flux_r"] if "/" in name else getattr(lost, name)
    assert (values == 0).all() if name == "mask" else np.isnan(values).all()
    assert store.read(chunk, N).unreadable == {}


def test_a_damaged_psf_loses_its_stamps(broken, stamps):
    file = broken / "psf/c/0/0/0/0"
    file.write_bytes(flipped(file, 30))
    found = open_store(broken, checked=True).read(0, 40)
    assert len(found.unreadable) == 40
    assert "`psf` cannot be read" in found.unreadable[3]
    assert np.isnan(open_store(broken, checked=True).psfs_at([3])[1]).all()


def test_a_run_outside_of_the_store_is_refused(opened):
    for run in ((-1, 3), (3, 2), (0, N + 1)):
        with pytest.raises(ValueError, match="must be in order between 0 and 1224"):
            opened.read(*run)


def test_the_fingerprint_is_of_the_content(opened, stamps, sound, tmp_path):
    moved = shutil.copytree(sound, tmp_path / "moved.zarr")
    for file in moved.rglob("*"):
        os.utime(file, (1, 1))
    assert open_store(moved).fingerprint() == opened.fingerprint()
    assert open_store(moved, checked=True).fingerprint() == opened.fingerprint()
    whole, header = stamps
    seen = {opened.fingerprint()}
    image, mask, truth = whole.image.copy(), whole.mask.copy(), dict(whole.truth)
    image[N // 2, 0, 1, 1] += 1
    mask[N - 1, 0, 0] ^= 1
    truth["flux_r"] = truth["flux_r"] * 2
    psf = whole.psf * np.float32(0.5)
    changes = ({"image": image}, {"mask": mask}, {"truth": truth}, {"psf": psf}, {"truth": {}})
    for number, change in enumerate(changes):
        path = write_stamps(replace(whole, **change), header, tmp_path / f"{number}.zarr")
        seen.add(open_store(path).fingerprint())
    path = write_stamps(whole, replace(header, pixel_scale=0.3), tmp_path / "scale.zarr")
    seen.add(open_store(path).fingerprint())
    path = write_stamps(whole.part(0, N - 1), header, tmp_path / "less.zarr")
    seen.add(open_store(path).fingerprint())
    assert len(seen) == 8


@pytest.mark.parametrize(
    ("form", "index"),
    [("one", None), ("each", None), ("table", np.arange(6) % 2)],
)
def test_make_stamps_takes_psfs_in_every_form(form, index):
    psf = {"one": psf_images(1)[0], "each": psf_images(6), "table": psf_images(2)}[form]
    made, _ = stamps_of(6, psf=psf, psf_index=index)
    wanted = {"one": [psf] * 6, "each": psf, "table": psf[np.arange(6) % 2]}[form]
    np.testing.assert_allclose(made.psf[made.psf_index], wanted, rtol=1e-6)


def test_make_stamps_takes_what_there_is():
    ragged = [np.ones((2, 2)), [], [[1.0, 2.0]], np.zeros((0, 2)), [[0, 1], [2, 3], [1, 1]]]
    made, header = stamps_of(
        5, position=ragged, truth=None, source_id=[[4, 5], [], [9], [], [1, 2, 3]]
    )
    assert made.n_sources().tolist() == [2, 0, 1, 0, 3]
    assert made.source_id.tolist()[2] == [9, 0, 0]
    assert header.most_sources == 3
    one, header = make_stamps(
        np.arange(3 * 4 * 5, dtype=">f8").reshape(3, 4, 5),
        2.0,
        np.ones((3, 3)) / 9,
        np.ones((3, 2)),
        bands="r",
        unit="nJy",
    )
    assert one.image.dtype == np.float32
    assert one.image.dtype.isnative
    assert one.image.shape == (3, 1, 4, 5)
    assert one.variance.tolist() == [[2.0]] * 3
    assert one.position.shape == (3, 1, 2)
    assert one.source_id.ravel().tolist() == [1, 2, 3]
    assert header.zero_points == pytest.approx((31.4,), abs=0.001)
    by_band, _ = stamps_of(4, variance=[1.0, 3.0])
    assert by_band.variance.tolist() == [[1.0, 3.0]] * 4
    hidden = np.ma.masked_less(np.arange(4 * 2 * 4 * 4.0).reshape(4, 2, 4, 4), 3)
    assert np.isnan(stamps_of(4, image=hidden)[0].image).sum() == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image": np.ones((4, 3, 4, 4))}, r"`image` needs shape \(stamp, 2, y, x\)"),
        ({"image": np.full((4, 2, 4, 4), "x")}, "`image` must be real numbers"),
        ({"image": np.full((4, 2, 4, 4), 1e300)}, "`image` does not fit float32"),
        ({"variance": np.ones((4, 4, 4))}, "`variance` needs the shape of `image`"),
        ({"variance": 0.0}, "`variance` must be positive"),
        ({"psf": np.ones((2, 4, 5))}, "`psf` needs odd height and width"),
        ({"psf": np.ones((3, 5, 5))}, r"`psf` needs shape \(2, h, w\)"),
        ({"psf": psf_images(3), "psf_index": None}, "`psf` has 3 images for 4 stamps"),
        ({"psf_index": [0, 1, 2, 5]}, "`psf_index` must be at least 0 and below 5"),
        ({"position": np.ones((3, 1, 2))}, "`position` needs an array"),
        ({"position": [np.ones((2, 3))] * 4}, r"`position` .* got \(2, 3\) for stamp 0"),
        ({"bands": ("g", "g")}, "`bands` must be different names"),
        ({"mask": np.ones((4, 2, 4, 4))}, "`mask` needs booleans"),
        ({"id": [1, 2, 2, 3]}, "`id` must be all different; 2 comes 2 times"),
        ({"id": [1.0, 2, 3, 4]}, "`id` needs whole numbers"),
        ({"ra": np.ones(3)}, r"`ra` needs numbers of shape \(4,\)"),
        ({"crowded": np.ones(4)}, "`crowded` needs 4 booleans"),
        ({"truth": {"flux": np.ones(4)}}, "`truth` needs numbers"),
        ({"pixel_scale": 0}, "`pixel_scale` must be one positive number"),
        ({"zero_points": [1, 2, 3]}, "`zero_points` needs 2 finite numbers"),
        ({"oversampling": 0.5}, "`oversampling` must be a whole number"),
    ],
)
def test_make_stamps_says_what_is_wrong(change, words):
    with pytest.raises(ValueError, match=words):
        stamps_of(4, **change)


def test_the_examples_of_the_description_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (Path(checks.__file__).parent / "STORE.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    names: dict = {}
    for block in blocks:
        exec(block, names)
    assert len(blocks) == 4
    same(open_store("large.zarr").read(0, 100), names["stamps"])
    same(open_store("stamps.zarr").read(0, 100), names["stamps"])


def test_the_description_has_all_arrays_and_attributes():
    text = (Path(checks.__file__).parent / "STORE.md").read_text()
    told = set(re.findall(r"`(\w+)`", "\n".join(re.findall(r"^\| (.*?) \|", text, re.MULTILINE))))
    assert {*REQUIRED, *OPTIONAL, PSF} <= told
    assert {"format", "version", "finished", "psfs", *write_store._SHARED} <= told
    assert f"version {VERSION}" in text
    assert f"puts {SHARD} stamps, {SHARD // CHUNK} chunks" in text
