"""Jobs on a Ray cluster: the results and the table of a local run, also when workers or machines die; Ctrl-C leaves nothing."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial
from pathlib import Path

import pytest

ray = pytest.importorskip("ray", reason="Ray is an optional extra")

from ray.cluster_utils import Cluster  # noqa: E402

from latentsync.errors import InputError  # noqa: E402
from latentsync.media.files import STAGING_PREFIX, read_table, staged  # noqa: E402
from latentsync.media.segments import work_folder  # noqa: E402
from latentsync.pipelines.face_cache import FaceCache  # noqa: E402
from latentsync.pipelines.options import LipsyncOptions  # noqa: E402
from latentsync.pipelines.result import LipsyncResult  # noqa: E402
from latentsync.pipelines.timeline import Part  # noqa: E402
from scripts import jobs as jobs_module  # noqa: E402
from scripts.jobs import JobSpec, run_batch, run_spread, work_here  # noqa: E402
from scripts.ray_jobs import work_on_ray  # noqa: E402

FRAMES = 30
USELESS, DEADLY = 404, 666  # seeds of jobs that fail, and that end their process


class SlowPipeline:
    """Writes the seed of a job, a frame each moment."""

    face_cache: FaceCache | None = None

    def __init__(self, pause: float) -> None:
        self.pause = pause

    def __call__(
        self, video: Path, audio: Path, output: Path, options: LipsyncOptions, callback: Callable[..., None], part: Part | None = None
    ) -> LipsyncResult:
        if options.seed == USELESS:
            raise InputError("No face to work on: name another video.")
        with staged(output) as temporary:
            for frame in range(FRAMES):
                temporary.write_text(f"seed {options.seed}, frames {frame}")
                time.sleep(self.pause)
                if callback is not None:
                    callback("generate", frame, FRAMES)
                if options.seed == DEADLY and frame == FRAMES // 2:
                    os._exit(1)
        numbers = {field.name: None for field in fields(LipsyncResult)} | {"seconds": {"total": 1.0}, "duration": 1.0, "warnings": ()}
        return LipsyncResult(**numbers | {"frames": FRAMES, "generated": FRAMES, "seed": options.seed, "output_path": output})


class PartsPipeline(SlowPipeline):
    """Writes a file for each part, slowly, and joins their names."""

    def __call__(
        self, video: Path, audio: Path, output: Path, options: LipsyncOptions, callback: Callable[..., None], part: Part | None = None
    ) -> LipsyncResult:
        folder = work_folder(output)
        folder.mkdir(exist_ok=True)
        if part is not None:
            return super().__call__(video, audio, folder / f"{part.index} of {part.count}", options, callback)
        parts = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith(STAGING_PREFIX))
        result = super().__call__(video, audio, output, options, callback)
        output.write_text(f"{parts}")
        return result


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A machine that has no room for workers."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setattr(jobs_module, "check_inputs", lambda *_: None)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def jobs_in(folder: Path, *seeds: int) -> list[JobSpec]:
    return [JobSpec(folder / "a.mp4", folder / "b.wav", folder / f"{seed}.mkv", LipsyncOptions(seed=seed)) for seed in seeds]


def results(folder: Path) -> dict[str, str]:
    """The content of every file but the table, and but what a machine that went away left, which the next run removes there."""
    return {path.name: path.read_text() for path in folder.iterdir() if path.suffix != ".csv" and not path.name.startswith(STAGING_PREFIX)}


def table(folder: Path) -> dict[str, tuple]:
    """What the table says, but for where a job was done and how long it took."""
    rows = read_table(folder / "jobs.outcomes.csv")
    return {Path(row["video_out_path"]).name: tuple(row.get(key) for key in ("status", "reason", "frames", "seed")) for row in rows}


def test_two_machines_make_what_one_makes_though_one_goes_away(tmp_path: Path, cluster: Cluster) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    seeds = (1, 2, USELESS, 3, 4)
    here.mkdir()
    there.mkdir()
    assert (
        run_batch(jobs_in(here, *seeds), here / "jobs.csv", partial(work_here, build=partial(SlowPipeline, 0.0), write_report=False)) == 1
    )
    cluster.add_node(num_cpus=1)
    second = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()

    def lose() -> None:
        while not (there / "1.mkv").exists():
            time.sleep(0.02)
        time.sleep(0.3)  # both machines have a job again
        cluster.remove_node(second, allow_graceful=False)

    loss = threading.Thread(target=lose, daemon=True)
    loss.start()
    work = partial(work_on_ray, build=partial(SlowPipeline, 0.05), write_report=False, address=cluster.address, gpus_per_worker=1.0)
    assert run_batch(jobs_in(there, *seeds), there / "jobs.csv", work) == 1
    loss.join()
    assert results(there) == results(here)
    assert table(there) == table(here)
    assert max(int(row["tries"]) for row in read_table(there / "jobs.outcomes.csv")) == 2


def test_a_job_that_ends_its_workers_is_given_up_and_an_interrupted_one_leaves_nothing(tmp_path: Path, cluster: Cluster) -> None:
    cluster.add_node(num_cpus=1)
    work = partial(work_on_ray, build=partial(SlowPipeline, 0.01), write_report=False, address=cluster.address, gpus_per_worker=0.0)
    outcomes = work(jobs_in(tmp_path, DEADLY, 1, 2, 3))
    assert [next(outcomes).status for _ in range(3)] == ["made"] * 3
    last = next(outcomes)
    assert (last.status, last.tries) == ("failed", 3) and "went away 3 times" in last.reason
    outcomes.close()
    outcomes = work(jobs_in(tmp_path, 5, 6))
    assert next(outcomes).job.options.seed == 5
    time.sleep(0.1)
    outcomes.close()  # what Ctrl-C comes to
    assert {path.name for path in tmp_path.iterdir()} == {"1.mkv", "2.mkv", "3.mkv", "5.mkv"}


def test_one_job_is_spread_in_parts_also_where_a_machine_goes_away(tmp_path: Path, cluster: Cluster) -> None:
    cluster.add_node(num_cpus=1)
    second = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    [job] = jobs_in(tmp_path, 1)

    def lose() -> None:
        while not any(work_folder(job.video_out_path).glob("*")):
            time.sleep(0.02)
        cluster.remove_node(second, allow_graceful=False)

    loss = threading.Thread(target=lose, daemon=True)
    loss.start()
    work = partial(work_on_ray, build=partial(PartsPipeline, 0.1), write_report=False, address=cluster.address, gpus_per_worker=0.0)
    assert run_spread(job, work) == 0
    loss.join()
    assert job.video_out_path.read_text() == "['0 of 2', '1 of 2']"
    assert not work_folder(job.video_out_path).exists()
