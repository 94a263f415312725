"""The pipeline on a Ray cluster of two machines: the same results as on one, also when a machine goes away."""

import threading
import time
from pathlib import Path

import pipeline_stages
import pytest

ray = pytest.importorskip("ray", reason="Ray is an optional extra")

from preprocess.executors.local import LocalExecutor  # noqa: E402
from preprocess.executors.ray import RayExecutor  # noqa: E402
from preprocess.manifest_file import read_manifest  # noqa: E402
from preprocess.pipeline import Order, run_pipeline  # noqa: E402


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


def test_two_machines_make_what_one_makes_though_one_goes_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parents[1]}:{Path(__file__).parent}")
    here, there = tmp_path / "here", tmp_path / "there"
    run_pipeline(Order(pipeline_stages.stages(), make_raw(here, 6), here), lambda steps: LocalExecutor(steps, 2, [], 60.0))

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        second = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        raw = make_raw(there, 6)

        def lose_a_machine() -> None:
            while not list((there / "cut").glob("*_0.mp4")):
                time.sleep(0.1)
            cluster.remove_node(second, allow_graceful=False)

        loss = threading.Thread(target=lose_a_machine)
        loss.start()
        stages = pipeline_stages.stages(pause=0.3)
        run_pipeline(Order(stages, raw, there), lambda steps: RayExecutor(steps, 2, 0, cluster.address, 60.0))
        loss.join()
    finally:
        cluster.shutdown()
    assert pipeline_stages.tree(there / "cut") == pipeline_stages.tree(here / "cut")
    assert rows(there) == rows(here)
