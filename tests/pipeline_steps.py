"""Small steps for the tests of the pipeline's machinery: they copy, cut, refuse, hang and die as a file's text tells them to."""

import os
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

from latentsync.errors import InputError, LatentSyncError
from latentsync.media.files import staged
from preprocess.step import ClipFile, Kept, Outcome, Rejected, Settings, StepDefinition


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with staged(path) as temporary:
        temporary.write_text(text)
    return path


class Check:
    """Keeps the raw file where it is; each has 10 s, "broken" is refused."""

    def __call__(self, clip: ClipFile, folder: Path) -> Outcome:
        if clip.path.read_text() == "broken":
            return [Rejected("broken", f"{clip.name} cannot be decoded")]
        return [Kept(clip.path, {"duration": 10.0})]


class Copy:
    """Adds a letter to the text, after a pause; obeys words in it once."""

    def __init__(self, letter: str, pause: float) -> None:
        self.letter, self.pause = letter, pause

    def __call__(self, clip: ClipFile, folder: Path) -> Outcome:
        text = clip.path.read_text()
        obey(text, clip)
        time.sleep(self.pause)
        path = folder / (clip.name if clip.name.endswith(".mp4") else f"{clip.name}.mp4")
        return [Kept(write(path, text + self.letter), {"frames": 250})]


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


class Cut:
    """Makes two of one; the second is refused where its text says so."""

    def __init__(self, suffix: str) -> None:
        self.suffix = suffix

    def __call__(self, clip: ClipFile, folder: Path) -> Outcome:
        text = clip.path.read_text()
        pieces = [folder / f"{Path(clip.name).with_suffix('')}_{k}.mp4" for k in range(2)]
        first = Kept(write(pieces[0], text + self.suffix + "0"), {"duration": 5.0, "confidence": float(len(text))})
        if text.startswith("half"):
            return [first, Rejected("too short", "the rest lasts 3.00 s", {"duration": 3.0})]
        return [first, Kept(write(pieces[1], text + self.suffix + "1"), {"duration": 5.0, "confidence": float(len(text))})]


class Same:
    """Makes one name of all clips."""

    def __call__(self, clip: ClipFile, folder: Path) -> Outcome:
        return [Kept(write(folder / "same.mp4", clip.path.read_text()))]


def open_check(settings: Settings, checkpoints: Path, device: str) -> Check:
    return Check()


def open_copy(settings: Settings, checkpoints: Path, device: str, pause: float = 0.0) -> Copy:
    return Copy(settings["letter"], pause)


def open_cut(settings: Settings, checkpoints: Path, device: str) -> Cut:
    return Cut(settings["suffix"])


def open_same(settings: Settings, checkpoints: Path, device: str) -> Same:
    return Same()


def open_never(settings: Settings, checkpoints: Path, device: str) -> Copy:
    raise LatentSyncError("its weights are damaged")


def fixed(options: Settings, checkpoints: Path, settings: Settings) -> Settings:
    return settings


def steps(letter: str = "c", suffix: str = "p", pause: float = 0.0) -> list[StepDefinition]:
    opening = partial(open_copy, pause=pause)
    copy, cut = partial(fixed, settings={"letter": letter}), partial(fixed, settings={"suffix": suffix})
    return [
        StepDefinition("check", open_check),
        StepDefinition("copy", opening, "copied", settings=copy),
        StepDefinition("cut", open_cut, "cut", settings=cut, columns=("confidence",), device="gpu"),
    ]


def tree(folder: Path) -> dict[str, str]:
    """Relative path -> text of every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}
