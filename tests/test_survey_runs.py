"""Runs of surveys in one process: what is planned, resumed, refused, lost and fitted again.

Fits are made up, number by number from the pixels, so that nothing is compiled.
"""

import json
import os
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from survey_run import make_found
from survey_stars import SETTINGS, N, make_stars, rows, same, write_stars

from diffdeblend.stamps import open_store, write_stamps
from diffdeblend.survey import fit_survey, on_cluster
from diffdeblend.survey.dispatch import Event, dispatch
from diffdeblend.survey.engine import in_process
from diffdeblend.survey.finished import finished, sweep
from diffdeblend.survey.fit_runs import Done
from diffdeblend.survey.manifest import keep_manifest
from diffdeblend.survey.parts import Run, list_parts, part_path
from diffdeblend.survey.placement import gpus_of, pin, places
from diffdeblend.survey.plan import batches

# A pixel of this value stands for a stamp whose fit fails.
CURSED = 12345.0


def made_up(blends, **_):
    """Instead of `fit_batch`: numbers that hang on nothing but the pixels of their own stamp."""
    if any((np.asarray(blend.data) == CURSED).any() for blend in blends):
        raise FloatingPointError("a cursed stamp")
    sums = np.array([np.asarray(blend.data, float).sum() for blend in blends])
    found = make_found([blend.n_sources for blend in blends], n_bands=1, covariance=False)
    changes = {"flags": np.zeros_like(found.flags), "steps": np.full_like(found.steps, 3)}
    for name, values in vars(found).items():
        if isinstance(values, np.ndarray) and values.dtype.kind == "f":
            own = sums if name in ("sky", "chi2", "value") else sums[found.blend]
            changes[name] = np.broadcast_to(own.reshape(-1, *[1] * (values.ndim - 1)), values.shape)
    return replace(found, **changes, kind=np.zeros_like(found.kind))


@pytest.fixture(autouse=True)
def no_compiling(monkeypatch):
    """All fits of these tests are made up."""
    monkeypatch.setattr("diffdeblend.survey.fit_stamps.fit_batch", made_up)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The path of a store of sound stamps."""
    return write_stars(tmp_path_factory.mktemp("store") / "stars.zarr")


@pytest.fixture
def whole(store, tmp_path):
    """All rows of the store, of a run that nothing disturbed."""
    fit_survey(store, tmp_path / "whole", SETTINGS)
    return rows(tmp_path / "whole")


def run(store, out, **options):
    """A run in batches of 5."""
    return fit_survey(store, out, options.pop("settings", SETTINGS), batch=5, **options)


def failing_after(count):
    """An engine that fits in this process and fails after so many batches."""

    @contextmanager
    def engine():
        with in_process() as workers:

            class Failing:
                choose = staticmethod(workers.choose)

                def fit(self, job, runs):
                    for number, done in enumerate(workers.fit(job, runs)):
                        if number == count:
                            raise OSError(28, "No space left on device")
                        yield done

            yield Failing()

    return engine


def test_a_run_tells_what_it_did(store, tmp_path):
    told = []
    done = run(store, tmp_path / "out", report=lambda done, total: told.append((done, total)))
    assert (done.planned, done.done, done.retried) == (N, N, 0)
    assert done.status == {"ok": N}
    assert {total for _, total in told} == {N}
    assert [each.run for each, _ in told] == list(batches([Run(0, N)], 5))
    assert set(done.seconds) == {"read", "wait", "fit", "write", "wall"}
    assert done.stamps_per_second == N / done.seconds["wall"]
    again = run(store, tmp_path / "out")
    assert (again.planned, again.done, again.status) == (0, 0, {})
    assert again.stamps_per_second == 0


def test_values_do_not_depend_on_batches(store, tmp_path, whole):
    fit_survey(store, tmp_path / "ones", SETTINGS, batch=1)
    run(store, tmp_path / "fives")
    assert same(rows(tmp_path / "ones"), whole)
    assert same(rows(tmp_path / "fives"), whole)
    # The made-up numbers do tell stamps apart.
    assert len({str(row["flux_r"]) for row in whole.values()}) == N


def test_a_run_that_stopped_goes_on(store, tmp_path, whole):
    with pytest.raises(OSError, match="No space left"):
        run(store, tmp_path / "out", engine=failing_after(2))
    before = {path: path.stat().st_mtime_ns for _, path in list_parts(tmp_path / "out")}
    assert 2 <= len(before) < 5
    done = run(store, tmp_path / "out")
    assert done.done == N - sum(
        len(run) for run, path in list_parts(tmp_path / "out") if path in before
    )
    assert same(rows(tmp_path / "out"), whole)
    assert (
        before.items()
        <= {path: path.stat().st_mtime_ns for _, path in list_parts(tmp_path / "out")}.items()
    )


@pytest.mark.parametrize("harm", ["truncate", "empty", "remove", "overlap"])
def test_what_is_not_whole_is_fitted_again(store, tmp_path, whole, harm):
    out = tmp_path / "out"
    run(store, out)
    path = part_path(out, Run(5, 10))
    if harm == "truncate":
        os.truncate(path, path.stat().st_size - 40)
    elif harm == "empty":
        path.write_bytes(b"")
    elif harm == "remove":
        path.unlink()
    else:
        # As a process leaves it that was thought dead.
        part_path(out, Run(3, 10)).write_bytes(path.read_bytes())
    assert run(store, out).done == (0 if harm == "overlap" else 5)
    assert same(rows(out), whole)


def test_other_settings_are_refused(store, tmp_path):
    run(store, tmp_path / "out")
    with pytest.raises(ValueError, match="background"):
        run(store, tmp_path / "out", settings=replace(SETTINGS, background="none"))


def test_another_store_is_refused(store, tmp_path):
    run(store, tmp_path / "out")
    other = write_stars(tmp_path / "other.zarr", make_stars(seed=1))
    with pytest.raises(ValueError, match="another store"):
        run(other, tmp_path / "out")


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shards_cover_all_once(store, tmp_path, whole, count):
    out = tmp_path / "out"
    shares = [run(store, out, shard=(i, count)).done for i in range(1, count + 1)]
    assert sum(shares) == N
    assert same(rows(out), whole)


def test_shards_leave_each_others_parts_alone(store, tmp_path):
    out = tmp_path / "out"
    run(store, out, shard=(1, 2))
    (broken, path), *_ = list_parts(out)
    path.write_bytes(b"")
    run(store, out, shard=(2, 2))
    assert path.exists()
    assert run(store, out, shard=(1, 2)).done == len(broken)


def test_the_limit_is_rounded_up_to_a_batch(store, tmp_path):
    assert run(store, tmp_path / "out", limit=6).done == 10
    assert run(store, tmp_path / "out", limit=1).done == 5
    assert list(finished(tmp_path / "out", Run(0, N))) == [Run(0, 5), Run(5, 10), Run(10, 15)]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"batch": 0}, "batch"),
        ({"batch": True}, "batch"),
        ({"batch": 2.5}, "batch"),
        ({"limit": 0}, "limit"),
        ({"shard": (0, 2)}, "shard"),
        ({"shard": (3, 2)}, "shard"),
        ({"shard": 3}, "shard"),
    ],
)
def test_arguments_are_checked(store, tmp_path, options, named):
    with pytest.raises(ValueError, match=f"`{named}`"):
        fit_survey(store, tmp_path / "out", SETTINGS, **options)
    assert not (tmp_path / "out").exists()


def harmed():
    """Stamps of which some are broken, by their numbers; and the status of these."""
    stamps = make_stars()
    stamps.image[1] = np.nan
    stamps.mask[2] = 1
    stamps.position[3, 0] = 400.0, 12.0
    stamps.position[4] = np.nan
    stamps.image[5, 0, 12, 12] = CURSED
    # A PSF of its own.
    psf = np.concatenate([stamps.psf, np.full((1, 1, 15, 15), np.nan, np.float32)])
    index = stamps.psf_index.copy()
    index[6] = 2
    statuses = dict.fromkeys((1, 2, 3, 6), "bad_input") | {4: "no_sources", 5: "failed"}
    return replace(stamps, psf=psf, psf_index=index, psf_key=np.arange(3)), statuses


def test_broken_stamps_are_rows_and_harm_no_other(tmp_path, whole):
    stamps, statuses = harmed()
    done = run(write_stars(tmp_path / "harmed.zarr", stamps), tmp_path / "out")
    found = rows(tmp_path / "out")
    assert {n: row["status"] for n, row in found.items() if row["status"] != "ok"} == statuses
    assert done.status == Counter(statuses.values()) + Counter(ok=N - len(statuses))
    for number, status in statuses.items():
        error = found[number]["error"]
        assert "\n" not in error
        assert bool(error) == (status != "no_sources")
    assert "FloatingPointError" in found[5]["error"]
    sound = [number for number in range(N) if number not in statuses]
    assert same({n: found[n] for n in sound}, {n: whole[n] for n in sound})


def test_failed_stamps_are_fitted_again(store, tmp_path, whole, monkeypatch):
    out = tmp_path / "out"
    bad = [row["id"] for row in list(whole.values())[3:12:2]]

    def sometimes(blends, **options):
        counts = [blend.data.sum() for blend in blends]
        if any(count in cursed for count in counts):
            raise FloatingPointError("out of memory")
        return made_up(blends, **options)

    stamps = make_stars()
    cursed = {stamps.image[number].sum() for number in range(3, 12, 2)}
    monkeypatch.setattr("diffdeblend.survey.fit_stamps.fit_batch", sometimes)
    assert run(store, out).status["failed"] == len(bad)
    before = rows(out)
    # Without being asked for, nothing is fitted again.
    assert run(store, out).done == 0
    cursed = {stamps.image[3].sum()}
    done = run(store, out, retry_failed=True)
    assert (done.planned, done.done, done.retried) == (5, 5, 5)
    assert done.status == {"ok": 4, "failed": 1}
    found = rows(out)
    assert found[3]["status"] == "failed"
    for n in range(N):
        assert same(found[n], whole[n] if n != 3 else before[3])
        assert n in range(3, 12, 2) or same(found[n], before[n])
    assert not list(out.glob("retry*"))
    assert [own for own, _ in list_parts(out)] == list(batches([Run(0, N)], 5))
    cursed = set()
    assert run(store, out, retry_failed=True, shard=(2, 2)).done == 0
    assert run(store, out, retry_failed=True, shard=(1, 2)).done == 1
    assert same(rows(out), whole)


class FakePool:
    """Workers without processes: some stamps kill, some raise; and all that is seen is counted.

    - `deadly`: stamps that kill who fits them, unless it is told that they are lost.
    - `chance`: pieces that die of nothing in them, by their number.
    """

    def __init__(self, workers=2, deadly=(), chance=(), raises=None, noisy=False):
        self.workers, self.deadly, self.raises = workers, set(deadly), raises
        self.chance, self.noisy = set(chance), noisy
        self.queue, self.disk, self.lost = [], set(), []
        self.most = self.sent = self.deaths = 0
        self.sizes = []

    def size(self):
        return self.workers

    def submit(self, piece):
        self.sent += 1
        self.queue.append((self.sent, piece))
        self.sizes.append(len(piece.runs))
        self.most = max(self.most, len(self.queue))
        assert not any(own.alone for _, own in self.queue) or len(self.queue) == 1

    def next(self, timeout):
        number, piece = self.queue.pop(0)
        done = []
        for run in piece.runs:
            own = set(range(run.start, run.stop))
            if self.raises is not None and self.raises in own:
                return Event(piece, error=OSError("gone"))
            if number in self.chance or (own & self.deadly and not piece.lost):
                self.deaths += 1
                return Event(piece, deaths=1)
            if piece.lost:
                self.lost += sorted(own)
            assert not self.disk & own
            self.disk |= own
            done.append(Done(run, {"ok": len(run)}, {"fit": 0.02 * len(run), "wait": 0.0}))
        return Event(piece, tuple(done + done if self.noisy else done))

    def look(self, run):
        there = set(range(run.start, run.stop)) <= self.disk
        return Done(run, {"ok": len(run)}, {}) if there else None


def covered(told):
    """The stamps of what was told, each of which must come once."""
    found = [number for done in told for number in range(done.run.start, done.run.stop)]
    assert len(set(found)) == len(found)
    return set(found)


@hypothesis_settings(max_examples=60, deadline=None)
@given(
    n=st.integers(0, 300),
    batch=st.integers(1, 70),
    workers=st.integers(0, 5),
    deadly=st.sets(st.integers(0, 299), max_size=4),
    chance=st.sets(st.integers(1, 30), max_size=3),
    noisy=st.booleans(),
)
def test_stamps_that_kill_are_found_and_no_others(n, batch, workers, deadly, chance, noisy):
    pool = FakePool(workers, deadly, chance, noisy=noisy)
    told = list(dispatch(batches([Run(0, n)], batch), pool))
    assert covered(told) == set(range(n)) == pool.disk
    deadly = {number for number in deadly if number < n}
    # Chance may hit the same stamp no more than twice in a row before it is alone.
    assert deadly <= set(pool.lost)
    assert len(set(pool.lost) - deadly) <= len(chance) // 3
    assert pool.most <= 2 * max(1, workers)


def test_few_processes_die_of_a_stamp():
    pool = FakePool(4, deadly={700})
    assert covered(dispatch(batches([Run(0, 4096)], 256), pool)) == set(range(4096))
    assert pool.lost == [700]
    # The piece, its batch, 32, 4 and 1 stamps of it, and that one alone.
    assert pool.deaths == 6


def test_a_lone_stamp_gets_three_tries():
    pool = FakePool(deadly={3})
    list(dispatch(batches([Run(0, 8)], 1), pool))
    assert (pool.lost, pool.deaths) == ([3], 3)


def test_pieces_grow_and_shrink():
    pool = FakePool(4)
    runs = list(batches([Run(0, 4000 * 16)], 16))
    assert covered(dispatch(iter(runs), pool)) == set(range(4000 * 16))
    # A batch takes 0.32 s, so 16 of them are still below ten seconds.
    assert pool.sizes[:8] == [1] * 8
    assert max(pool.sizes) == 16
    assert pool.sizes[-8:] == [1] * 8
    assert pool.sizes[8:] == sorted(pool.sizes[8:], reverse=True)


def test_batches_are_taken_as_they_are_needed():
    taken = []

    def endless():
        for run in batches([Run(0, 1 << 40)], 256):
            taken.append(run)
            yield run

    told = dispatch(endless(), FakePool(2))
    for _ in range(3000):
        next(told)
    assert len(taken) < 3000 + 200


def test_an_error_ends_the_run_after_what_is_under_way():
    pool = FakePool(3, raises=20)
    told = []
    with pytest.raises(OSError, match="gone"):
        keep_all(dispatch(batches([Run(0, 4000)], 4), pool), told)
    assert not pool.queue
    assert covered(told) == pool.disk
    assert pool.sent < 20


def keep_all(events, told):
    """Keep what came before an error."""
    for each in events:
        told.append(each)


def test_of_two_manifests_at_once_one_wins(tmp_path, monkeypatch):
    def manifest(name):
        return {
            "format": "diffdeblend survey run",
            "version": 1,
            "settings": {"model": name},
            "store": {"sha256": "a", "path": "a"},
            "settings_sha256": name,
        }

    barrier = threading.Barrier(2)
    results = {}
    from diffdeblend.survey import manifest as module

    read = module.read_manifest
    first = threading.local()

    def both_see_none(out):
        found = read(out)
        if not getattr(first, "past", False):
            first.past = True
            barrier.wait(5)
        return found

    monkeypatch.setattr(module, "read_manifest", both_see_none)

    def write(name):
        try:
            results[name] = keep_manifest(tmp_path, manifest(name))["settings_sha256"]
        except ValueError as error:
            results[name] = str(error)

    threads = [threading.Thread(target=write, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    won = json.loads((tmp_path / "manifest.json").read_text())["settings_sha256"]
    lost = {"one": "two", "two": "one"}[won]
    assert results[won] == won
    assert "other settings" in results[lost]
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_fits_know_that_noise_is_correlated(store, tmp_path, monkeypatch):
    opened = open_store(store)
    noise = (((0.2, 1.0, 0.2),),)
    seen = []

    def looked_at(blends, **options):
        seen.extend(blend.noise_correlation for blend in blends)
        return made_up(blends, **options)

    monkeypatch.setattr("diffdeblend.survey.fit_stamps.fit_batch", looked_at)
    for known in (None, noise):
        path = tmp_path / f"{known is None}.zarr"
        write_stamps(opened.read(0, 4), replace(opened.header, noise_correlation=known), path)
        assert open_store(path).header.noise_correlation == known
        run(path, tmp_path / f"{known is None}")
    assert seen[:4] == [None] * 4
    np.testing.assert_allclose(np.array(seen[4:]), np.broadcast_to(noise, (4, 1, 1, 3)))


def test_other_versions_that_go_on_are_told(tmp_path):
    made = {
        "settings": {"model": "point"},
        "store": {"sha256": "a", "path": "a"},
        "settings_sha256": "b",
        "format": "diffdeblend survey run",
        "version": 1,
    }
    keep_manifest(tmp_path, {**made, "versions": {"jax": "0.10.0", "numpy": "2.4"}})
    with pytest.warns(UserWarning, match=r"begun with jax 0\.10\.0, now 0\.11\.0: numbers may"):
        keep_manifest(tmp_path, {**made, "versions": {"jax": "0.11.0", "numpy": "2.4"}})
    # As it was begun: nothing to be told of.
    keep_manifest(tmp_path, {**made, "versions": {"jax": "0.10.0", "numpy": "2.4"}})


def test_only_old_leftovers_are_swept(store, tmp_path):
    out = tmp_path / "out"
    run(store, out)
    folder = part_path(out, Run(0, 5)).parent
    old, young = (folder / f".{letter * 32}-part-x.parquet" for letter in "ab")
    for path in (old, young, folder / ".keep"):
        path.write_bytes(b"")
        if path != young:
            os.utime(path, (time.time() - 90000,) * 2)
    assert sweep(out) == 1
    assert [old.exists(), young.exists(), (folder / ".keep").exists()] == [False, True, True]


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, ["0", "1", "10"]),
        ({"CUDA_VISIBLE_DEVICES": "1, 10"}, ["1", "10"]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-7ab,MIG-2"}, ["GPU-7ab", "MIG-2"]),
        ({"CUDA_VISIBLE_DEVICES": "0,-1,1"}, ["0"]),
        ({"CUDA_VISIBLE_DEVICES": ""}, []),
        ({"JAX_PLATFORMS": "cpu"}, []),
        ({"JAX_PLATFORMS": "cuda,cpu"}, ["0", "1", "10"]),
    ],
)
def test_gpus_are_those_that_cuda_may_use(tmp_path, environment, found):
    for name in ("nvidia0", "nvidia10", "nvidia1", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    assert gpus_of(environment, tmp_path) == found


def test_each_process_has_a_gpu_or_a_core():
    own = places(None, gpus=["2", "5"], cores=[0])
    assert [place.environment["CUDA_VISIBLE_DEVICES"] for place in own] == ["2", "5"]
    assert not any("XLA_PYTHON_CLIENT_PREALLOCATE" in place.environment for place in own)
    with pytest.warns(UserWarning, match="3 workers share 2 GPUs"):
        own = places(3, gpus=["2", "5"], cores=[0])
    assert [place.environment["CUDA_VISIBLE_DEVICES"] for place in own] == ["2", "5", "2"]
    assert all(place.environment["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false" for place in own)
    own = places(2, gpus=[], cores=[3, 4, 9])
    assert [place.cores for place in own] == [(3,), (4,)]
    assert all(place.environment["OPENBLAS_NUM_THREADS"] == "1" for place in own)
    with pytest.warns(UserWarning, match="2 workers share 1 cores"):
        assert [place.cores for place in places(2, gpus=[], cores=[7])] == [(7,), (7,)]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system cannot pin")
def test_pinning_reaches_all_threads():
    before = os.sched_getaffinity(0)
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        pin([min(before)])
        assert os.sched_getaffinity(thread.native_id) == {min(before)} == os.sched_getaffinity(0)
    finally:
        stop.set()
        thread.join()
        pin(sorted(before))
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"workers": 0}, "workers"),
        ({"workers": True}, "workers"),
        ({"workers": 2, "scheduler_file": "a"}, "workers"),
        ({"scheduler_file": "nowhere.json"}, "scheduler_file"),
    ],
)
def test_arguments_of_clusters_are_checked(options, named):
    pytest.importorskip("distributed")
    with pytest.raises(ValueError, match=f"`{named}`"):
        on_cluster(**options)


def test_a_survey_without_work_starts_no_cluster(store, tmp_path):
    def forbidden():
        raise AssertionError

    run(store, tmp_path / "out")
    assert run(store, tmp_path / "out", engine=forbidden, retry_failed=True).planned == 0
