"""Videos of the pipeline under test: made once, kept beside a note of what they were made of, so that a measurement can be resumed."""

import logging
import tempfile
import wave
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from latentsync.constants import AUDIO_SAMPLE_RATE, VIDEO_FPS
from latentsync.errors import ConfigError, OutputError
from latentsync.media.files import read_record, write_json
from latentsync.pipelines.lipsync_pipeline import LipsyncPipeline
from latentsync.pipelines.options import LipsyncOptions
from latentsync.weights import file_sha256

logger = logging.getLogger(__name__)

SILENCE = "silence"  # in the place of a sound's checksum


def checksums(paths: Mapping[str, Path]) -> dict[str, str]:
    """The checksums of files, and of the files of folders, by name."""
    files = {name: sorted(path.iterdir()) if path.is_dir() else [path] for name, path in paths.items()}
    return {
        name if len(found) == 1 else f"{name}/{path.name}": file_sha256(path)
        for name, found in files.items()
        for path in found
        if path.is_file()
    }


class GeneratedVideos:
    """Makes videos, or finds them made.

    Args:
        folder: where they are kept, each with a .json of its name that appears after it.
        recipe: everything that decides how a video turns out but its inputs: checksums of weights, settings.
        build: makes the pipeline, when the first video has to be made.
        options: of every job.
    """

    def __init__(
        self, folder: Path, recipe: Mapping[str, Any], build: Callable[[], LipsyncPipeline], options: LipsyncOptions | None = None
    ) -> None:
        self.folder, self.recipe, self._build = folder, dict(recipe), build
        self.options = options or LipsyncOptions(length="video", overwrite=True)

    @cached_property
    def pipeline(self) -> LipsyncPipeline:
        """One for all videos."""
        return self._build()

    def say(self, name: str, video: Path, sound: Path) -> Path:
        """The person of a video with the words of a sound. Raises as `LipsyncPipeline`, and ConfigError for another recipe's video."""
        return self._get(name, video, sound, file_sha256(sound))

    def be_silent(self, name: str, video: Path, frames: int) -> Path:
        """The person of a video of so many frames hearing nothing. Raises like `say`."""
        with tempfile.TemporaryDirectory(prefix="latentsync-") as folder:
            sound = Path(folder) / "silence.wav"
            with wave.open(str(sound), "wb") as file:
                file.setparams((1, 2, AUDIO_SAMPLE_RATE, 0, "NONE", ""))
                file.writeframes(bytes(2 * (frames * AUDIO_SAMPLE_RATE // VIDEO_FPS)))
            return self._get(name, video, sound, SILENCE)

    def _get(self, name: str, video: Path, sound: Path, heard: str) -> Path:
        made, note = self.folder / f"{name}.mp4", self.folder / f"{name}.json"
        wanted = {"recipe": self.recipe, "video": file_sha256(video), "sound": heard}
        if made.is_file() and note.is_file():
            if {key: read_record(note).get(key) for key in wanted} != wanted:
                raise ConfigError(f"{made} was made of other weights, settings or clips: name another --output_dir, or delete it")
            return made
        try:
            note.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write into {self.folder}: {error.strerror}") from None
        result = self.pipeline(video, sound, made, self.options)
        write_json(note, {**wanted, "frames": result.frames, "generated": result.generated, "warnings": list(result.warnings)})
        return made

    def generated_share(self, name: str) -> float:
        """Share of a kept video's frames that got a new mouth."""
        note = read_record(self.folder / f"{name}.json")
        return note.get("generated", 0) / max(1, note.get("frames", 1))
