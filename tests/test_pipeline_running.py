"""The pipeline with real processes: clips that hang, die and fail, a kill -9 in the middle, an interruption, a step that cannot begin."""

import os
import signal
import threading
import time
from pathlib import Path

import pipeline_steps
import psutil
import pytest
from pipeline_steps import endings, make_raw, rows, start, tree, wait_for
from refusals import refused

from latentsync.errors import InputError, LatentSyncError
from preprocess.pipeline import run_pipeline
from preprocess.runner import LocalExecutor, PipelineConfig, descendants
from preprocess.step import StepDefinition, plan_steps


def run(folder: Path, steps: list[StepDefinition] | None = None, workers: int = 2, timeout: float = 60.0) -> None:
    config = PipelineConfig(steps or pipeline_steps.steps(), folder / "raw", folder)
    run_pipeline(config, lambda planned: LocalExecutor(planned, workers, [], timeout))


def reasons(folder: Path) -> dict[str, tuple[str, str]]:
    """Source -> reason and sentence of what was rejected."""
    return {source: (reason, why) for source, reason, why in rows(folder, "source, reason, why") if reason}


def test_clips_that_hang_die_and_fail_do_not_stop_the_others(tmp_path: Path) -> None:
    folder = make_raw(tmp_path, 4, "hang", "die", "once", "bug", "fail", "useless")
    before = tree(folder / "raw")
    run(folder, timeout=1.5)
    assert tree(folder / "raw") == before
    found = reasons(folder)
    assert found == {
        "hang.mp4": ("timed out", "copy took longer than 1.5 s"),
        "die.mp4": ("crashed", "its process was ended by signal 9 (out of memory?)"),
        "bug.mp4": ("crashed", "ZeroDivisionError: a step with a mistake"),
        "fail.mp4": ("failed", "the disk is on fire"),
        "useless.mp4": ("unusable", "there is nothing to see"),
    }
    assert (folder / "died-once").exists() and (folder / "cut" / "once_1.mp4").exists()
    assert len(tree(folder / "cut")) == 10
    assert "sleep 1000" not in map(command_of, psutil.process_iter()), "what the hanging step had started still runs"
    assert not list(folder.rglob(".latentsync-*")), "the stump of a process that was ended"

    for name in ("fail", "hang"):
        (folder / "raw" / f"{name}.mp4").write_text("mended")
    run(folder, workers=1)
    assert set(reasons(folder)) == {"die.mp4", "bug.mp4", "useless.mp4"}


def command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def workers_of(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [process for process in processes if "spawn_main" in command_of(process)]


def test_a_killed_run_goes_on_and_ends_like_one_that_was_not(tmp_path: Path) -> None:
    whole, killed = make_raw(tmp_path / "whole", 12), make_raw(tmp_path / "killed", 12)
    run(whole)
    process = start(killed)
    wait_for(killed, 3)  # of two workers: one of them is in the manifest
    below = descendants(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    limit = time.monotonic() + 30
    while workers_of(below) and time.monotonic() < limit:
        time.sleep(0.05)
    assert not workers_of(below), "workers outlived the run"
    done = [row for row in rows(killed, "source, step") if row[1] == "cut"]
    assert 0 < len(done) < 24
    for path, kept in rows(killed, "path, kept"):
        assert not kept or (killed / path).is_file() or (killed / "raw" / path).is_file(), "a row without its file"
    before = {killed / path: (killed / path).stat().st_mtime_ns for step, path in rows(killed, "step, path") if step == "cut"}
    run(killed)
    assert rows(killed) == rows(whole) and tree(killed / "cut") == tree(whole / "cut")
    assert {path: path.stat().st_mtime_ns for path in before} == before, "what was done was done again"


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_that_are_killed_are_replaced(tmp_path: Path, workers: int) -> None:
    whole, killed = make_raw(tmp_path / "whole", 9), make_raw(tmp_path / "killed", 9)
    run(whole)

    def kill_all() -> None:
        wait_for(killed, 2)
        for process in workers_of(descendants(os.getpid())):
            process.kill()

    killer = threading.Thread(target=kill_all)
    killer.start()
    run(killed, pipeline_steps.steps(pause=0.2), workers)
    killer.join()
    assert rows(killed) == rows(whole) and tree(killed / "cut") == tree(whole / "cut")


def test_a_polite_end_cleans_up(tmp_path: Path) -> None:
    folder = make_raw(tmp_path, 12)
    process = start(folder)
    wait_for(folder, 1)
    refused(InputError, "in use by another run", run, folder)
    below = descendants(process.pid)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 130
    assert not workers_of(below) and not list(folder.rglob(".latentsync-*"))
    assert endings(folder) == ["interrupted"]


def test_a_step_that_cannot_begin_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    folder = make_raw(tmp_path, 3)
    steps = [pipeline_steps.steps()[0], StepDefinition("never", pipeline_steps.open_never, "never")]
    refused(LatentSyncError, r"never cannot begin \(its weights are damaged", run, folder, steps)
    assert [row[0] for row in rows(folder, "step") if row[0] == "never"] == []


def test_a_step_that_always_fails_ends_the_run_and_loses_no_clip(tmp_path: Path) -> None:
    folder = make_raw(tmp_path, 0, *(f"fail {k}" for k in range(30)))
    refused(LatentSyncError, "10 clips in a row, the last time so: the disk is on fire", run, folder, workers=1)
    assert reasons(folder) == {}, "clips were given up for what is not their fault"


def test_steps_with_networks_get_their_own_processes_and_devices() -> None:
    steps = plan_steps(pipeline_steps.steps(), Path("/nowhere"), {}, Path())
    apart = LocalExecutor(steps, 3, ["cuda:0", "cuda:1"], 1.0)
    assert [apart.free(k) for k in range(3)] == [3, 3, 2] and apart.slots() == 5
    together = LocalExecutor(steps, 3, [], 1.0)
    assert [together.free(k) for k in range(3)] == [3, 3, 3] and together.slots() == 3
