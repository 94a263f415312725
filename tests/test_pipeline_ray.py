"""The pipeline on a Ray cluster: the same results as with processes of one machine, also when workers, machines or the run itself die."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pipeline_steps
import psutil
import pytest

ray = pytest.importorskip("ray", reason="Ray is an optional extra")

from ray.cluster_utils import Cluster  # noqa: E402

from latentsync.errors import LatentSyncError  # noqa: E402
from preprocess import ray_runner, runner  # noqa: E402
from preprocess.manifest import read_manifest  # noqa: E402
from preprocess.pipeline import run_pipeline  # noqa: E402
from preprocess.ray_runner import RayExecutor  # noqa: E402
from preprocess.runner import LocalExecutor, PipelineConfig, descendants  # noqa: E402

TESTS = Path(__file__).parent
PROGRAM = """
import sys
from pathlib import Path
import pipeline_steps
from preprocess.ray_runner import RayExecutor
from preprocess.pipeline import run_pipeline
from preprocess.runner import PipelineConfig

folder = Path(sys.argv[1])
run_pipeline(PipelineConfig(pipeline_steps.steps(pause=0.2), folder / "raw", folder), lambda steps: RayExecutor(steps, 2, 0, None, 60.0))
"""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", f"{TESTS.parent}:{TESTS}")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A machine that has no room for workers."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What processes of this machine make."""
    folder = tmp_path_factory.mktemp("local")
    run_pipeline(PipelineConfig(pipeline_steps.steps(), make_raw(folder, 6), folder), lambda steps: LocalExecutor(steps, 2, [], 60.0))
    return folder


def make_raw(folder: Path, count: int) -> Path:
    raw = folder / "raw"
    raw.mkdir(parents=True)
    for k in range(count):
        (raw / f"clip {k}.mp4").write_text(f"half {k}" if k % 3 else str(k))
    (raw / "die.mp4").write_text("die")
    (raw / "useless.mp4").write_text("useless")
    return raw


def rows(output: Path) -> list[tuple]:
    with read_manifest(output) as manifest:
        query = "SELECT source, step, name, path, kept, reason, facts FROM clips ORDER BY source, step, name"
        return [tuple(row) for row in manifest.connection.execute(query)]


def run(folder: Path, address: str | None, workers: int) -> None:
    steps = pipeline_steps.steps(pause=0.3)
    run_pipeline(PipelineConfig(steps, folder / "raw", folder), lambda planned: RayExecutor(planned, workers, 0, address, 60.0))


def assert_same(folder: Path, local: Path) -> None:
    assert pipeline_steps.tree(folder / "cut") == pipeline_steps.tree(local / "cut")
    assert rows(folder) == rows(local)
    with read_manifest(folder) as manifest:
        assert manifest.connection.execute("SELECT ending FROM runs ORDER BY id DESC").fetchone()[0] == "done"


def once_begun(folder: Path, action: Callable[[], object]) -> threading.Thread:
    """Do something as soon as the first clip is through."""

    def wait_and_act() -> None:
        limit = time.monotonic() + 120
        while not list((folder / "cut").glob("*_0.mp4")):
            assert time.monotonic() < limit, "no clip came through"
            time.sleep(0.1)
        action()

    thread = threading.Thread(target=wait_and_act, daemon=True)
    thread.start()
    return thread


def kill_all_workers() -> None:
    for process in descendants(os.getpid()):
        with contextlib.suppress(psutil.Error):  # it has ended
            if "".join(process.cmdline()).startswith("ray::RayWorker"):
                process.kill()


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_that_are_all_killed_at_once_are_replaced(tmp_path: Path, cluster: Cluster, local: Path, workers: int) -> None:
    cluster.add_node(num_cpus=workers)
    make_raw(tmp_path, 6)
    killer = once_begun(tmp_path, kill_all_workers)
    run(tmp_path, cluster.address, workers)
    killer.join()
    assert_same(tmp_path, local)


def test_two_machines_make_what_one_makes_though_one_goes_away(tmp_path: Path, cluster: Cluster, local: Path) -> None:
    cluster.add_node(num_cpus=1)
    second = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    make_raw(tmp_path, 6)
    loss = once_begun(tmp_path, lambda: cluster.remove_node(second, allow_graceful=False))
    run(tmp_path, cluster.address, 2)
    loss.join()
    assert_same(tmp_path, local)


def test_a_run_whose_only_machine_is_lost_is_not_done(
    tmp_path: Path, cluster: Cluster, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = cluster.add_node(num_cpus=1)
    make_raw(tmp_path, 6)
    monkeypatch.setattr(runner, "NO_WORKER_SECONDS", 20.0)
    loss = once_begun(tmp_path, lambda: cluster.remove_node(machine, allow_graceful=False))
    with pytest.raises(LatentSyncError, match=r"Clips wait for the step .* there was no worker for it"):
        run(tmp_path, cluster.address, 1)
    loss.join()
    with read_manifest(tmp_path) as manifest:
        assert "there was no worker" in manifest.connection.execute("SELECT ending FROM runs").fetchone()[0]
    cluster.add_node(num_cpus=1)
    run(tmp_path, cluster.address, 1)
    assert_same(tmp_path, local)


def test_workers_that_cannot_begin_end_the_run_with_their_reason(tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.add_node(num_cpus=2)
    make_raw(tmp_path, 1)
    monkeypatch.setattr(ray_runner, "RayWorker", NeverBegins)
    with pytest.raises(LatentSyncError, match="No CPU worker of the Ray cluster could begin"):
        run(tmp_path, cluster.address, 2)


class NeverBegins:
    """An actor that dies at once."""

    def __init__(self, *_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def ready(self) -> str:
        return "never"


def test_a_run_that_is_killed_goes_on(tmp_path: Path, local: Path) -> None:
    make_raw(tmp_path, 6)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    process = subprocess.Popen([sys.executable, program, tmp_path], stderr=subprocess.DEVNULL)
    once_begun(tmp_path, process.kill).join()
    assert process.wait(60) == -signal.SIGKILL
    assert 0 < len(rows(tmp_path)) < len(rows(local))
    run(tmp_path, None, 2)
    assert_same(tmp_path, local)
