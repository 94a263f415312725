"""Small steps for the tests of the pipeline: they copy, cut, refuse, hang and die as a file's text says. Run as a program: one run."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from latentsync.cli import run_command
from latentsync.errors import InputError, LatentSyncError
from latentsync.media.files import staged
from preprocess.manifest import read_manifest
from preprocess.pipeline import run_pipeline
from preprocess.runner import LocalExecutor, PipelineConfig
from preprocess.step import ClipFile, Kept, Outcome, Rejected, Settings, StepDefinition


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with staged(path) as temporary:
        temporary.write_text(text)
    return path


def check(clip: ClipFile, folder: Path) -> Outcome:
    """Keeps the raw file where it is; each has 10 s, "broken" is refused."""
    if clip.path.read_text() == "broken":
        return [Rejected("broken", f"{clip.name} cannot be decoded")]
    return [Kept(clip.path, {"duration": 10.0})]


def copy(clip: ClipFile, folder: Path, letter: str, pause: float) -> Outcome:
    """Adds a letter to the text, after a pause; obeys words in it once."""
    text = clip.path.read_text()
    obey(text, clip)
    time.sleep(pause)
    path = folder / (clip.name if clip.name.endswith(".mp4") else f"{clip.name}.mp4")
    return [Kept(write(path, text + letter), {"frames": 250})]


def obey(text: str, clip: ClipFile) -> None:
    if text.startswith("hang"):
        with staged(clip.path.parent.parent / "copied" / "hanging.mp4"):
            subprocess.run(["sleep", "1000"], start_new_session=True, check=False)
    if text.startswith("die"):
        os.kill(os.getpid(), signal.SIGKILL)
    if text.startswith("once"):  # dies the first time
        mark = clip.path.parent.parent / "died-once"
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    if text.startswith("bug"):
        raise ZeroDivisionError("a step with a mistake")
    if text.startswith("fail"):
        raise LatentSyncError("the disk is on fire")
    if text.startswith("useless"):
        raise InputError("there is nothing to see")


def cut(clip: ClipFile, folder: Path, suffix: str) -> Outcome:
    """Makes two of one; the second is refused where its text says so."""
    text = clip.path.read_text()
    paths = [write(folder / f"{Path(clip.name).with_suffix('')}_{k}.mp4", f"{text}{suffix}{k}") for k in range(1 + (text[:4] != "half"))]
    kept = [Kept(path, {"duration": 5.0, "confidence": float(len(text))}) for path in paths]
    return kept if len(kept) == 2 else [*kept, Rejected("too short", "the rest lasts 3.00 s", {"duration": 3.0})]


def same(clip: ClipFile, folder: Path) -> Outcome:
    return [Kept(write(folder / "same.mp4", clip.path.read_text()))]


def opened(settings: Settings, checkpoints: Path, device: str, processor: Callable[..., Outcome], **more: float) -> Callable[..., Outcome]:
    return partial(processor, **settings, **more)


def open_never(settings: Settings, checkpoints: Path, device: str) -> Callable[..., Outcome]:
    raise LatentSyncError("its weights are damaged")


def step(name: str, processor: Callable[..., Outcome], folder: str = "", settings: Settings | None = None, **more: Any) -> StepDefinition:
    """A step with settings that no option changes."""
    return StepDefinition(name, partial(opened, processor=processor), folder, settings=partial(fixed, settings=settings or {}), **more)


def fixed(options: Settings, checkpoints: Path, settings: Settings) -> Settings:
    return settings


def steps(letter: str = "c", suffix: str = "p", pause: float = 0.0) -> list[StepDefinition]:
    copying = partial(opened, processor=copy, pause=pause)
    return [
        step("check", check),
        StepDefinition("copy", copying, "copied", settings=partial(fixed, settings={"letter": letter})),
        step("cut", cut, "cut", {"suffix": suffix}, columns=("confidence",), device="gpu"),
    ]


def tree(folder: Path) -> dict[str, str]:
    """Relative path -> text of every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


def rows(folder: Path, columns: str = "source, step, name, path, made, kept, reason, facts") -> list[tuple]:
    """Columns of all rows of the manifest of a folder."""
    with read_manifest(folder) as manifest:
        return [tuple(row) for row in manifest.connection.execute(f"SELECT {columns} FROM clips ORDER BY source, step, name")]


def endings(folder: Path) -> list[str]:
    with read_manifest(folder) as manifest:
        return [row[0] for row in manifest.connection.execute("SELECT ending FROM runs ORDER BY id")]


def make_raw(folder: Path, count: int, *words: str) -> Path:
    """Raw files in folder/raw: `count` plain ones, and one for each word that `obey` knows."""
    for text in (*(f"clip {k}" for k in range(count)), *words):
        write(folder / "raw" / f"{text}.mp4", text)
    return folder


def start(folder: Path, executor: str = "local") -> subprocess.Popen[bytes]:
    """A run in a process of its own that can be ended."""
    paths = [str(Path(__file__).parents[1]), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.Popen([sys.executable, __file__, folder, executor], env=environment, stderr=subprocess.DEVNULL)


def wait_for(folder: Path, count: int) -> None:
    """Until so many clips came through."""
    limit = time.monotonic() + 120
    while len(list((folder / "cut").glob("*_1.mp4"))) < count:
        assert time.monotonic() < limit, "no clip came through"
        time.sleep(0.02)


def main(folder: Path, executor: str) -> int:
    """One run with slow steps in two processes."""
    from pipeline_steps import steps  # not those of __main__, which another process cannot import

    def make(planned: list) -> LocalExecutor:
        if executor == "local":
            return LocalExecutor(planned, 2, [], 60.0)
        from preprocess.ray_runner import RayExecutor

        return RayExecutor(planned, 2, 0, None, 60.0)

    config = PipelineConfig(steps(pause=0.2), folder / "raw", folder)
    return run_command(lambda: run_pipeline(config, make), "preprocess", "interrupted")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
