"""The manifest, what a second run leaves, and who may write where; without processes."""

import json
import math
import shutil
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pipeline_steps
import pytest
from pipeline_steps import endings, rows, tree

from latentsync.errors import InputError, LatentSyncError
from latentsync.media.files import STAGING_PREFIX
from preprocess import runner as running
from preprocess.manifest import plain_facts, read_manifest
from preprocess.pipeline import find_raw_files, run_pipeline
from preprocess.runner import PipelineConfig, Result, Task, process_clip
from preprocess.step import Step, StepDefinition


class InProcess:
    """An executor without processes: its tasks are done when somebody waits.

    It lists them, can end a run after some, and can die with all it holds at some calls of `wait`; it is free again `late` calls later.
    """

    def __init__(
        self, steps: Sequence[Step], workers: int = 1, stop_after: float = math.inf, deaths: Sequence[float] = (), late: float = 0
    ) -> None:
        self.steps, self.workers, self.left, self.deaths, self.late = steps, workers, stop_after, deaths, late
        self.calls, self.back, self.tasks, self.names = 0, 0.0, list[Task](), list[str]()

    def free(self, step: int) -> int:
        return self.workers - len(self.tasks) if self.calls >= self.back else 0

    def slots(self) -> int:
        return self.workers

    def submit(self, task: Task) -> None:
        self.tasks.append(task)

    def wait(self, seconds: float) -> list[Result]:
        self.calls += 1
        tasks, self.tasks = self.tasks, []
        if self.calls in self.deaths:
            self.back = self.calls + self.late
            return [Result(task, (), 0.0, "lost", "its machine went away") for task in tasks]
        if tasks and self.left <= 0:
            raise KeyboardInterrupt
        self.left -= len(tasks)
        self.names += [f"{self.steps[task.step].name} {task.clip.name}" for task in tasks]
        return [Result(task, process_clip(self.steps[task.step].open("cpu"), task, self.steps[task.step]), 0.25) for task in tasks]

    def close(self, at_once: bool) -> None:
        pass


def run(folder: Path, steps: Sequence[StepDefinition] | None = None, stop_after: float = math.inf, **options: object) -> list[str]:
    """One run over `folder`/raw; what was worked on."""
    made: list[InProcess] = []

    def make(planned: Sequence[Step]) -> InProcess:
        made.append(InProcess(planned, stop_after=stop_after))
        return made[0]

    config = PipelineConfig(steps or pipeline_steps.steps(), folder / "raw", folder, **options)  # type: ignore[arg-type]
    try:
        run_pipeline(config, make)
    except KeyboardInterrupt:
        assert made[0].left == 0
    return made[0].names


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    raw = tmp_path / "raw"
    for name in ("a.mp4", "b/a.mp4", "b/a.mkv", "-d 'é\".mov", ".hidden/x.mp4", "notes.txt"):
        (raw / name).parent.mkdir(parents=True, exist_ok=True)
        (raw / name).write_text(name)
    (raw / "half.mp4").write_text("half")
    (raw / "broken.mp4").write_text("broken")
    return tmp_path


def test_a_run_leaves_a_row_for_each_clip_at_each_step_and_a_second_one_does_nothing(folder: Path) -> None:
    assert [name.split()[0] for name in run(folder)[:4]] == ["check", "copy", "cut", "check"]  # later steps come first
    assert set(tree(folder / "copied")) == {"a.mp4", "b/a.mp4", "b/a.mkv.mp4", "-d 'é\".mov.mp4", "half.mp4"}
    assert tree(folder / "cut")["b/a.mkv_1.mp4"] == "b/a.mkvcp1"
    found = rows(folder, "source, step, name, path, kept, reason, why, duration, frames, seconds")
    assert [row for row in found if row[0] == "half.mp4"] == [
        ("half.mp4", "check", "half.mp4", "half.mp4", 1, None, None, 10.0, None, 0.25),
        ("half.mp4", "copy", "half.mp4", "copied/half.mp4", 1, None, None, 10.0, 250.0, 0.25),
        ("half.mp4", "cut", "half.mp4", None, 0, "too short", "the rest lasts 3.00 s", 3.0, 250.0, 0.125),
        ("half.mp4", "cut", "half_0.mp4", "cut/half_0.mp4", 1, None, None, 5.0, 250.0, 0.125),
        ("half.mp4", "raw", "half.mp4", "half.mp4", 1, None, None, None, None, 0.0),
    ]
    assert ("broken.mp4", "check", "broken") in [(row[0], row[1], row[5]) for row in found]
    before = rows(folder, "*")
    assert run(folder) == [] and rows(folder, "*") == before


@pytest.mark.parametrize("stop_after", (0, 3, 8, 14))
def test_a_run_that_was_cut_short_goes_on(folder: Path, tmp_path: Path, stop_after: int) -> None:
    done = run(folder)
    whole, files = rows(folder), tree(folder / "cut")
    other = tmp_path / "other"
    shutil.copytree(folder / "raw", other / "raw")
    first, second = run(other, stop_after=stop_after), run(other)
    assert len(first) == stop_after and sorted(first + second) == sorted(done), "a clip was worked on twice, or not at all"
    assert rows(other) == whole and tree(other / "cut") == files


def test_a_changed_setting_redoes_that_step_and_those_behind_it(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    run(folder)
    (folder / "cut" / "mine.mp4").write_text("a file of somebody else")
    again = run(folder, pipeline_steps.steps(suffix="q"))
    assert {name.split()[0] for name in again} == {"cut"} and len(again) == 5
    assert "cut has other settings than before (suffix p -> q)" in caplog.text
    files = tree(folder / "cut")
    assert files.pop("mine.mp4") == "a file of somebody else"
    assert len(files) == 9 and all(text[-2] == "q" for text in files.values())
    assert {name.split()[0] for name in run(folder, pipeline_steps.steps(letter="d", suffix="q"))} == {"copy", "cut"}


def test_a_step_that_is_left_out_redoes_those_behind_it(folder: Path) -> None:
    run(folder)
    check, _, cut = pipeline_steps.steps()
    again = run(folder, [check, cut])
    assert {name.split()[0] for name in again} == {"cut"}
    assert tree(folder / "copied") == {}
    assert tree(folder / "cut")["a_0.mp4"] == "a.mp4p0"
    assert {name.split()[0] for name in run(folder)} == {"copy", "cut"}
    assert tree(folder / "cut")["a_0.mp4"] == "a.mp4cp0"


def test_lost_files_and_changed_raw_files_are_made_again(folder: Path) -> None:
    run(folder)
    (folder / "cut" / "a_1.mp4").unlink()
    assert run(folder) == ["cut a.mp4"]
    (folder / "cut" / "half_0.mp4").unlink()
    (folder / "copied" / "half.mp4").unlink()
    assert run(folder) == ["copy half.mp4", "cut half.mp4"]
    (folder / "raw" / "b" / "a.mp4").write_text("other words")
    assert sorted(run(folder)) == ["check b/a.mp4", "copy b/a.mp4", "cut b/a.mp4"]
    assert tree(folder / "cut")["b/a_0.mp4"] == "other wordscp0"


def test_intermediate_files_can_go_at_once_and_raw_files_never_do(folder: Path) -> None:
    before = tree(folder / "raw")
    run(folder, remove_intermediate=True)
    assert tree(folder / "copied") == {}
    assert len(tree(folder / "cut")) == 9
    assert run(folder, remove_intermediate=True) == []
    assert tree(folder / "raw") == before


def test_broken_files_are_removed_only_on_request(folder: Path) -> None:
    run(folder)
    assert (folder / "raw" / "broken.mp4").exists()
    run(folder, [pipeline_steps.step("check", pipeline_steps.check, "again")], delete_broken=True)
    names = set(tree(folder / "raw"))
    assert "broken.mp4" not in names and len(names) == 7


def test_a_limit_counts_raw_files(folder: Path) -> None:
    assert {name.split(maxsplit=1)[1] for name in run(folder, limit=2) if name.startswith("check")} == {"-d 'é\".mov", "a.mp4"}
    assert run(folder, limit=2) == []
    assert len([name for name in run(folder) if name.startswith("check")]) == 4


def test_names_that_would_mix(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    for name in ("a.mkv", "a.mkv.mp4", "b.mp4", "b.mov", "two\nlines.mp4"):
        (raw / name).write_text("x")
    (raw / b"\xff.mp4".decode("utf-8", "surrogateescape")).write_text("x")
    found = {file.source: file.refused and file.refused.reason for file in find_raw_files(raw)}
    assert found == {
        **{"a.mkv": None, "b.mp4": None, "b.mov": None},
        **{"a.mkv.mp4": "name taken", "two\nlines.mp4": "unreadable name", "\\xff.mp4": "unreadable name"},
    }
    run(tmp_path)
    assert len(tree(tmp_path / "cut")) == 6


def test_a_new_column_is_added_to_an_old_manifest_and_filled(folder: Path) -> None:
    check, copy, cut = pipeline_steps.steps()
    run(folder, [check, copy, replace(cut, columns=())])
    with read_manifest(folder) as manifest:
        assert manifest.columns == ["duration", "frames"]
    assert run(folder) == [], "a column made steps work again"
    with read_manifest(folder) as manifest:
        assert manifest.columns == ["duration", "frames", "confidence"]
    assert {row[0] for row in rows(folder, "confidence") if row[0]} == {5.0, 6.0, 8.0, 11.0}


def test_two_clips_of_one_name_are_told(folder: Path) -> None:
    check, _, _ = pipeline_steps.steps()
    run(folder, [check, pipeline_steps.step("same", pipeline_steps.same, "same")])
    found = [row for row in rows(folder, "source, step, kept, reason") if row[1] == "same"]
    kept = [row[0] for row in found if row[2]]
    assert len(kept) == 1 and {row[3] for row in found if not row[2]} == {"name taken"}
    assert tree(folder / "same")["same.mp4"] == (folder / "raw" / kept[0]).read_text()


def test_the_manifest_can_be_read_while_it_is_written_and_keeps_odd_numbers(folder: Path) -> None:
    run(folder, stop_after=5)
    with read_manifest(folder) as reader, sqlite3.connect(folder / "manifest.sqlite") as writer:
        writer.execute("BEGIN IMMEDIATE")
        assert reader.count_raw() == 6
    plain = plain_facts({"a": np.float32(0.5), "b": np.int64(3), "c": float("nan"), "d": True, "e": None})  # type: ignore[dict-item]
    assert json.loads(json.dumps(plain)) == {"a": 0.5, "b": 3, "c": None, "d": True, "e": None}


def test_folders_of_others_are_refused(folder: Path) -> None:
    (folder / "copied").mkdir()
    (folder / "copied" / "holiday.mp4").write_text("mine")
    with pytest.raises(InputError, match="did not make"):
        run(folder)
    with pytest.raises(InputError, match="never written to"):
        run_pipeline(PipelineConfig(pipeline_steps.steps(), folder / "raw", folder / "raw" / "out"), InProcess)
    with pytest.raises(InputError, match="cannot be the input"):
        run_pipeline(PipelineConfig(pipeline_steps.steps(), folder / "copied", folder), InProcess)


def test_an_output_folder_belongs_to_one_input(folder: Path) -> None:
    run(folder)
    (folder / "more").mkdir()
    with pytest.raises(InputError, match="its own --output_dir"):
        run_pipeline(PipelineConfig(pipeline_steps.steps(), folder / "more", folder), InProcess)
    folder.joinpath("manifest.sqlite").write_bytes(b"this is no database, but long enough to be looked at" * 40)
    with pytest.raises(InputError, match="no manifest"):
        run(folder)


def test_stumps_of_a_dead_run_are_removed(folder: Path) -> None:
    run(folder, stop_after=3)
    with read_manifest(folder) as manifest:
        assert not manifest.died()
    with sqlite3.connect(folder / "manifest.sqlite") as connection:
        connection.execute("UPDATE runs SET ending = NULL")  # as kill -9 leaves it
    stump = folder / "copied" / f"{STAGING_PREFIX}0123.mp4"
    stump.write_text("half a clip")
    run(folder)
    assert not stump.exists()
    assert endings(folder) == ["died", "done"]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("late", [1, 40])
def test_a_run_outlives_the_death_of_all_its_workers(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, workers: int, late: int
) -> None:
    run(folder)
    whole = rows(folder)
    other = tmp_path_factory.mktemp("other")
    shutil.copytree(folder / "raw", other / "raw")
    run_pipeline(
        PipelineConfig(pipeline_steps.steps(), other / "raw", other),
        lambda steps: InProcess(steps, workers, deaths=[2, 5 + late, 9 + 2 * late], late=late),
    )
    assert rows(other) == whole
    assert tree(other / "cut") == tree(folder / "cut")
    assert endings(other) == ["done"]


def test_a_run_without_workers_is_not_done_and_the_next_one_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "NO_WORKER_SECONDS", 0.1)
    config = PipelineConfig(pipeline_steps.steps(), folder / "raw", folder)
    with pytest.raises(LatentSyncError, match="Clips wait for the step check, and for 0 s there was no worker for it"):
        run_pipeline(config, lambda steps: InProcess(steps, 2, deaths=[3], late=math.inf))
    done = len(rows(folder))
    assert endings(folder)[0].startswith("Clips wait for the step check")
    run(folder)
    assert len(rows(folder)) > done and endings(folder)[1:] == ["done"]
    assert len(tree(folder / "cut")) == 9


class SlowCopy(InProcess):
    """A worker that is seldom free for the second step."""

    asked = 0

    def free(self, step: int) -> int:
        self.asked += step == 1
        return super().free(step) if step != 1 or self.asked % 50 == 0 else 0


def test_no_step_runs_far_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "raw").mkdir()
    for k in range(20):
        (tmp_path / "raw" / f"{k:02}.mp4").write_text("x")
    monkeypatch.setattr(running, "_LEAST_BETWEEN", 0)
    made: list[SlowCopy] = []
    run_pipeline(PipelineConfig(pipeline_steps.steps(), tmp_path / "raw", tmp_path), lambda steps: made.append(SlowCopy(steps)) or made[0])
    names = [name.split()[0] for name in made[0].names]
    ahead = [names[:k].count("check") - names[:k].count("copy") for k in range(len(names))]
    assert max(ahead) == 4 and len(names) == 60, "four clips may wait for each worker"
