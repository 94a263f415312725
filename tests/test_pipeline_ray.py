"""The pipeline on a Ray cluster: the same results as with processes of one machine, also when workers, machines or the run itself die."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pipeline_steps
import psutil
import pytest
from pipeline_steps import endings, make_raw, rows, start, tree, wait_for

ray = pytest.importorskip("ray", reason="Ray is an optional extra")

from ray.cluster_utils import Cluster  # noqa: E402

from latentsync.errors import LatentSyncError  # noqa: E402
from preprocess import ray_runner, runner  # noqa: E402
from preprocess.pipeline import run_pipeline  # noqa: E402
from preprocess.ray_runner import RayExecutor  # noqa: E402
from preprocess.runner import LocalExecutor, PipelineConfig, descendants  # noqa: E402

TESTS = Path(__file__).parent


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")]))  # Ray may be there


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A machine that has no room for workers."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_raw(tmp_path_factory.mktemp("local"), 6, "die", "useless")
    run_pipeline(PipelineConfig(pipeline_steps.steps(), folder / "raw", folder), lambda steps: LocalExecutor(steps, 2, [], 60.0))
    return folder


def run(folder: Path, address: str | None, workers: int) -> None:
    steps = pipeline_steps.steps(pause=0.3)
    run_pipeline(PipelineConfig(steps, folder / "raw", folder), lambda planned: RayExecutor(planned, workers, 0, address, 60.0))


def assert_same(folder: Path, local: Path) -> None:
    assert tree(folder / "cut") == tree(local / "cut")
    assert rows(folder) == rows(local) and endings(folder)[-1] == "done"


def once_begun(folder: Path, action: Callable[[], object]) -> threading.Thread:
    """Do something as soon as the first clip is through."""
    thread = threading.Thread(target=lambda: (wait_for(folder, 1), action()), daemon=True)
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
    make_raw(tmp_path, 6, "die", "useless")
    killer = once_begun(tmp_path, kill_all_workers)
    run(tmp_path, cluster.address, workers)
    killer.join()
    assert_same(tmp_path, local)


def test_two_machines_make_what_one_makes_though_one_goes_away(tmp_path: Path, cluster: Cluster, local: Path) -> None:
    cluster.add_node(num_cpus=1)
    second = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    make_raw(tmp_path, 6, "die", "useless")
    loss = once_begun(tmp_path, lambda: cluster.remove_node(second, allow_graceful=False))
    run(tmp_path, cluster.address, 2)
    loss.join()
    assert_same(tmp_path, local)


def test_a_run_whose_only_machine_is_lost_is_not_done(
    tmp_path: Path, cluster: Cluster, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = cluster.add_node(num_cpus=1)
    make_raw(tmp_path, 6, "die", "useless")
    monkeypatch.setattr(runner, "NO_WORKER_SECONDS", 20.0)
    loss = once_begun(tmp_path, lambda: cluster.remove_node(machine, allow_graceful=False))
    with pytest.raises(LatentSyncError, match=r"Clips wait for the step .* there was no worker for it"):
        run(tmp_path, cluster.address, 1)
    loss.join()
    assert "there was no worker" in endings(tmp_path)[0]
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
    make_raw(tmp_path, 6, "die", "useless")
    process = start(tmp_path, "ray")
    wait_for(tmp_path, 1)
    process.kill()
    assert process.wait(60) == -signal.SIGKILL
    assert 0 < len(rows(tmp_path)) < len(rows(local))
    run(tmp_path, None, 2)
    assert_same(tmp_path, local)
