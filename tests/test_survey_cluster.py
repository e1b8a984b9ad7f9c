"""Runs of surveys on Dask workers, of which some die: nothing is lost, and no bit changes."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from survey_stars import SETTINGS, N, rows, same, write_stars

from diffdeblend.survey import fit_survey, on_cluster
from diffdeblend.survey.parts import Run, list_parts, part_path

pytest.importorskip("distributed")
pytestmark = [
    pytest.mark.slow,
    # Dask leaves sockets and loops to the collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
HERE = Path(__file__).parent
PRELOAD = "DASK_DISTRIBUTED__WORKER__PRELOAD"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store, a folder of compiled programs, and all rows of a run in a process without Dask."""
    folder = tmp_path_factory.mktemp("cluster")
    store, cache = write_stars(folder / "stars.zarr"), folder / "programs"
    code = "import sys, survey_stars as s; from diffdeblend.survey import fit_survey; "
    code += "fit_survey(sys.argv[1], sys.argv[2], s.SETTINGS, cache=sys.argv[3])"
    told = [sys.executable, "-c", code, str(store), str(folder / "whole"), str(cache)]
    subprocess.run(told, cwd=HERE, env=environment(), check=True)
    return store, cache, rows(folder / "whole")


def environment(**more):
    """Of a process that finds the modules of these tests."""
    path = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"} | more


def begin(made, out, where="2", **more):
    """A driver in a session of its own, as a terminal gives it one."""
    store, cache, _ = made
    preload = {PRELOAD: str(HERE / "survey_preload.py"), "SURVEY_SECONDS": "0.3"} | more
    # A worker that takes longer than this to start again was given up for good.
    preload = {"DASK_DISTRIBUTED__DEPLOY__LOST_WORKER_TIMEOUT": "1ms"} | preload
    return subprocess.Popen(
        [sys.executable, HERE / "survey_driver.py", store, out, where, cache],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**preload),
        start_new_session=True,
    )


def wait_for(condition, seconds=240):
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.1)
    return found


def count(out):
    """Parts that are there."""
    return len(list(list_parts(out)))


def children(pid):
    """Processes that a process has started, workers of Dask alone."""
    found = subprocess.run(
        ["ps", "--ppid", str(pid), "-o", "pid=,args="], capture_output=True, text=True, check=False
    )
    return [int(line.split()[0]) for line in found.stdout.splitlines() if "spawn_main" in line]


def gone(pid):
    """Whether a process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_all_is_fitted_and_the_driver_starts_no_device(made, tmp_path):
    process = begin(made, tmp_path / "out", SURVEY_SECONDS="0")
    told, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    *batches, last = told.splitlines()
    assert sorted(int(line.split()[0]) for line in batches) == list(range(N))
    assert last == "not started"
    assert same(rows(tmp_path / "out"), made[2])


def test_a_killed_worker_is_replaced(made, tmp_path):
    process = begin(made, tmp_path / "out")
    wait_for(lambda: count(tmp_path / "out") >= 3)
    os.kill(children(process.pid)[0], signal.SIGKILL)
    told, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert sorted(int(line.split()[0]) for line in told.splitlines()[:-1]) == list(range(N))
    assert same(rows(tmp_path / "out"), made[2])


@pytest.mark.parametrize("how", ["killed", "ctrl-c"])
def test_workers_end_with_the_driver_and_the_run_goes_on(made, tmp_path, how):
    out = tmp_path / "out"
    process = begin(made, out)
    wait_for(lambda: count(out) >= 3)
    workers = children(process.pid)
    assert len(workers) == 2
    if how == "killed":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert how == "killed" or "KeyboardInterrupt" in errors
    wait_for(lambda: all(map(gone, workers)), 30)
    before = {path: path.stat().st_mtime_ns for _, path in list_parts(out)}
    assert 3 <= len(before) < N
    store, cache, whole = made
    done = fit_survey(store, out, SETTINGS, engine=on_cluster(2), cache=cache)
    assert done.done == N - len(before)
    assert all(path.stat().st_mtime_ns == at for path, at in before.items())
    assert same(rows(out), whole)


def test_a_stamp_that_kills_is_found(made, tmp_path, monkeypatch):
    store, cache, whole = made
    out = tmp_path / "out"
    import dask

    monkeypatch.setenv("SURVEY_DEADLY", "507")
    with dask.config.set({"distributed.worker.preload": [str(HERE / "survey_preload.py")]}):
        done = fit_survey(store, out, SETTINGS, batch=4, engine=on_cluster(2), cache=cache)
        found = rows(out)
        # Once more: it kills again.
        again = fit_survey(
            store, out, SETTINGS, engine=on_cluster(2), cache=cache, retry_failed=True
        )
    assert done.status == {"ok": N - 1, "killed_worker": 1}
    assert again.status == {"killed_worker": 1}
    assert same(rows(out), found)
    assert (found[7]["id"], found[7]["status"]) == (507, "killed_worker")
    assert part_path(out, Run(7, 8)).exists()
    assert same(
        {n: row for n, row in found.items() if n != 7},
        {n: row for n, row in whole.items() if n != 7},
    )
    monkeypatch.delenv("SURVEY_DEADLY")
    mended = fit_survey(store, out, SETTINGS, engine=on_cluster(1), cache=cache, retry_failed=True)
    assert mended.status == {"ok": 1}
    assert same(rows(out), whole)


def test_a_full_disk_stops_the_run_and_it_goes_on(made, tmp_path):
    store, cache, whole = made
    out = tmp_path / "out"
    out.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", out], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("no small disk can be mounted here")
    try:
        with pytest.raises(OSError, match="No space left on device"):
            fit_survey(store, out, SETTINGS, batch=1, engine=on_cluster(2), cache=cache)
        done = rows(out)
        assert 0 < len(done) < N
        assert not list(out.glob("parts/*/.*"))
        subprocess.run(["mount", "-o", "remount,size=9m", out], check=True)
        fit_survey(store, out, SETTINGS, batch=1, engine=on_cluster(2), cache=cache)
        assert same(rows(out), whole)
    finally:
        subprocess.run(["umount", out], check=True)


def test_files_that_may_not_grow_stop_the_run(made, tmp_path):
    store, cache, _ = made
    out = tmp_path / "out"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    fit_survey(store, out, SETTINGS, batch=1, limit=1, engine=on_cluster(1), cache=cache)
    # Python ignores the signal, and the write fails.
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            fit_survey(store, out, SETTINGS, batch=1, engine=on_cluster(1), cache=cache)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert count(out) == 1
    assert not list(out.glob("parts/*/.*"))


def test_workers_of_others_may_die_and_come_late(made, tmp_path):
    out, file = tmp_path / "out", tmp_path / "scheduler.json"
    own = environment(SURVEY_SECONDS="0.3")
    dask = [sys.executable, "-m", "dask"]
    running = []

    def start(*words):
        process = subprocess.Popen(
            [*dask, *words, "--scheduler-file", str(file), "--no-dashboard"],
            env=own,
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        running.append(process)
        return process

    worker = ("worker", "--nthreads", "1", "--preload", str(HERE / "survey_preload.py"))
    try:
        start("scheduler", "--host", "127.0.0.1", "--port", "0")
        wait_for(file.exists)
        first = start(*worker, "--no-nanny")
        process = begin(made, out, str(file))
        wait_for(lambda: count(out) >= 3)
        start(*worker)
        first.kill()
        told, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        assert sorted(int(line.split()[0]) for line in told.splitlines()[:-1]) == list(range(N))
        assert same(rows(out), made[2])
    finally:
        for each in running[::-1]:
            each.terminate()
        for each in running:
            each.wait(30)
