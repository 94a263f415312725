"""Inputs to try the app out with: people that this project rendered itself."""

import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Example:
    """A video and the sound that it shall be given."""

    title: str
    video: Path
    audio: Path

    def copy_to(self, folder: Path) -> tuple[Path, Path]:
        """Copies for a session to call its own: (video, audio)."""
        folder.mkdir(parents=True)
        return tuple(Path(shutil.copy(path, folder)) for path in (self.video, self.audio))


def find_examples(folder: Path) -> list[Example]:
    """The demos of a folder, `demoN_video.mp4` with `demoN_audio.wav`."""
    pairs = [(video, video.with_name(video.name.replace("_video.mp4", "_audio.wav"))) for video in sorted(folder.glob("demo*_video.mp4"))]
    return [Example(f"Example {number}", video, audio) for number, (video, audio) in enumerate(pairs, start=1) if audio.is_file()]
