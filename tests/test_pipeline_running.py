"""The pipeline with real processes: clips that hang, die and fail, a kill -9 in the middle, an interruption, a step that cannot begin."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pipeline_steps
import pytest

from latentsync.errors import InputError, LatentSyncError
from preprocess import pipeline
from preprocess.manifest import read_manifest
from preprocess.pipeline import run_pipeline
from preprocess.runner import LocalExecutor, PipelineConfig, descendants
from preprocess.step import StepDefinition, plan_steps

TESTS = Path(__file__).parent
PROGRAM = """
import sys
from pathlib import Path
import pipeline_steps
from preprocess.runner import LocalExecutor, PipelineConfig
from preprocess.pipeline import run_pipeline
from latentsync.cli import run_command

folder = Path(sys.argv[1])
config = PipelineConfig(pipeline_steps.steps(pause=0.2), folder / "raw", folder)
if __name__ == "__main__":
    sys.exit(run_command(lambda: run_pipeline(config, lambda steps: LocalExecutor(steps, 2, [], 60.0)), "preprocess", "interrupted"))
"""


def make_raw(folder: Path, count: int, *words: str) -> Path:
    raw = folder / "raw"
    raw.mkdir(parents=True)
    for k in range(count):
        (raw / f"clip {k}.mp4").write_text(f"clip {k}")
    for word in words:
        (raw / f"{word}.mp4").write_text(word)
    return folder


def run(folder: Path, steps: list[StepDefinition] | None = None, workers: int = 2, timeout: float = 60.0) -> None:
    config = PipelineConfig(steps or pipeline_steps.steps(), folder / "raw", folder)
    run_pipeline(config, lambda planned: LocalExecutor(planned, workers, [], timeout))


def rows(folder: Path, columns: str = "source, step, name, path, kept, reason, facts") -> list[tuple]:
    with read_manifest(folder) as manifest:
        return [tuple(row) for row in manifest.connection.execute(f"SELECT {columns} FROM clips ORDER BY source, step, name")]


def reasons(folder: Path) -> dict[str, tuple[str, str]]:
    """Source -> reason and sentence of what was rejected."""
    return {source: (reason, why) for source, reason, why in rows(folder, "source, reason, why") if reason}


def test_clips_that_hang_die_and_fail_do_not_stop_the_others(tmp_path: Path) -> None:
    folder = make_raw(tmp_path, 4, "hang", "die", "once", "bug", "fail", "useless")
    before = pipeline_steps.tree(folder / "raw")
    run(folder, timeout=1.5)
    assert pipeline_steps.tree(folder / "raw") == before
    found = reasons(folder)
    assert found == {
        "hang.mp4": ("timed out", "copy took longer than 1.5 s"),
        "die.mp4": ("crashed", "its process was ended by signal 9 (out of memory?)"),
        "bug.mp4": ("crashed", "ZeroDivisionError: a step with a mistake"),
        "fail.mp4": ("failed", "the disk is on fire"),
        "useless.mp4": ("unusable", "there is nothing to see"),
    }
    assert (folder / "died-once").exists() and (folder / "cut" / "once_1.mp4").exists()
    assert len(pipeline_steps.tree(folder / "cut")) == 10
    assert not [line for line in commands() if line.startswith("sleep\0001000")], "what the hanging step had started still runs"
    assert not list(folder.rglob(".latentsync-*")), "the stump of a process that was ended"

    for name in ("fail", "hang"):
        (folder / "raw" / f"{name}.mp4").write_text("mended")
    run(folder, workers=1)
    assert set(reasons(folder)) == {"die.mp4", "bug.mp4", "useless.mp4"}


def commands() -> list[str]:
    return [command_of(int(path.name)) for path in Path("/proc").glob("[0-9]*")]


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def start(folder: Path) -> subprocess.Popen[bytes]:
    """A run in a process of its own that can be ended."""
    program = folder / "program.py"
    program.write_text(PROGRAM)
    environment = os.environ | {"PYTHONPATH": f"{TESTS.parent}:{TESTS}"}
    return subprocess.Popen([sys.executable, program, folder], env=environment, stderr=subprocess.DEVNULL)


def wait_for(folder: Path, count: int) -> None:
    limit = time.monotonic() + 120
    while len(list((folder / "cut").glob("*_1.mp4"))) < count:
        assert time.monotonic() < limit, "no clip came through"
        time.sleep(0.02)


def test_a_killed_run_goes_on_and_ends_like_one_that_was_not(tmp_path: Path) -> None:
    whole, killed = make_raw(tmp_path / "whole", 12), make_raw(tmp_path / "killed", 12)
    run(whole)
    process = start(killed)
    wait_for(killed, 3)  # of two workers: one of them is in the manifest
    below = descendants(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    limit = time.monotonic() + 30
    while any("spawn_main" in command_of(worker.pid) for worker in below) and time.monotonic() < limit:
        time.sleep(0.05)
    assert not any("spawn_main" in command_of(worker.pid) for worker in below), "workers outlived the run"
    done = [row for row in rows(killed, "source, step") if row[1] == "cut"]
    assert 0 < len(done) < 24
    for _, _, _, path, kept, _, _ in rows(killed):
        assert not kept or (killed / path).is_file() or (killed / "raw" / path).is_file(), "a row without its file"
    before = {path: path.stat().st_mtime_ns for path in (killed / "cut").iterdir() if f"cut/{path.name}" in {r[3] for r in rows(killed)}}
    run(killed)
    assert rows(killed) == rows(whole)
    assert pipeline_steps.tree(killed / "cut") == pipeline_steps.tree(whole / "cut")
    assert {path: path.stat().st_mtime_ns for path in before} == before, "what was done was done again"


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_that_are_killed_are_replaced(tmp_path: Path, workers: int) -> None:
    whole, killed = make_raw(tmp_path / "whole", 9), make_raw(tmp_path / "killed", 9)
    run(whole)

    def kill_all() -> None:
        wait_for(killed, 2)
        for process in descendants(os.getpid()):
            if "spawn_main" in command_of(process.pid):
                process.kill()

    killer = threading.Thread(target=kill_all)
    killer.start()
    run(killed, pipeline_steps.steps(pause=0.2), workers)
    killer.join()
    assert rows(killed) == rows(whole)
    assert pipeline_steps.tree(killed / "cut") == pipeline_steps.tree(whole / "cut")


def test_a_polite_end_cleans_up(tmp_path: Path) -> None:
    folder = make_raw(tmp_path, 12)
    process = start(folder)
    wait_for(folder, 1)
    with pytest.raises(InputError, match="in use by another run"):
        run(folder)
    below = descendants(process.pid)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 130
    assert not any("spawn_main" in command_of(worker.pid) for worker in below)
    assert not list(folder.rglob(".latentsync-*"))
    with read_manifest(folder) as manifest:
        assert manifest.connection.execute("SELECT ending FROM runs").fetchone()[0] == "interrupted"


def test_a_step_that_cannot_begin_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    folder = make_raw(tmp_path, 3)
    steps = [pipeline_steps.steps()[0], StepDefinition("never", pipeline_steps.open_never, "never")]
    with pytest.raises(LatentSyncError, match=r"never cannot begin \(its weights are damaged"):
        run(folder, steps)
    assert [row[0] for row in rows(folder, "step") if row[0] == "never"] == []


def test_a_step_that_always_fails_ends_the_run_and_loses_no_clip(tmp_path: Path) -> None:
    folder = tmp_path
    (folder / "raw").mkdir()
    for k in range(30):
        (folder / "raw" / f"{k}.mp4").write_text("fail")
    with pytest.raises(LatentSyncError, match="10 clips in a row, the last time so: the disk is on fire"):
        run(folder, workers=1)
    assert reasons(folder) == {}, "clips were given up for what is not their fault"


def test_steps_with_networks_get_their_own_processes_and_devices() -> None:
    steps = plan_steps(pipeline_steps.steps(), Path("/nowhere"), {}, Path())
    apart = LocalExecutor(steps, 3, ["cuda:0", "cuda:1"], 1.0)
    assert [apart.free(k) for k in range(3)] == [3, 3, 2] and apart.slots() == 5
    together = LocalExecutor(steps, 3, [], 1.0)
    assert [together.free(k) for k in range(3)] == [3, 3, 3] and together.slots() == 3


def test_gpus_are_given_out_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pipeline.gpu_devices(0) == ["cuda:0", "cuda:1"]
    assert pipeline.gpu_devices(3) == ["cuda:0", "cuda:1", "cuda:0"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert pipeline.gpu_devices(3) == []


def test_missing_weights_are_named_with_the_way_around(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    steps = [StepDefinition("av_sync", pipeline_steps.open_check, weights=("syncnet_v2",))]
    config = PipelineConfig(steps, tmp_path / "raw", tmp_path, checkpoints=tmp_path)
    with pytest.raises(InputError, match=r"syncnet_v2\.model .* --skip av_sync"):
        run_pipeline(config, lambda planned: LocalExecutor(planned, 1, [], 1.0))
