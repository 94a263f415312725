"""Small copies of files that browsers do not play: the page shows the copy, the job uses the original."""

import threading
from pathlib import Path

from gradio.processing_utils import PLAYABLE_AUDIO_CODECS

from latentsync.errors import InputError
from latentsync.media.probe import QUIET, Child, MediaInfo, file_url, probe

PLAYABLE_VIDEO = {
    "h264": (".mp4", ".m4v", ".mov"),
    "av1": (".mp4", ".webm"),
    "vp8": (".webm",),
    "vp9": (".webm", ".mp4"),
}  # codec -> endings
PLAYABLE_PIXELS = ("yuv420p", "yuvj420p")
SIDE = 640  # pixels of the longer side of a copy
PHOTO_SECONDS = 2  # that the copy of a photo lasts


class Previews:
    """Makes copies that browsers play, and knows what they are copies of."""

    def __init__(self) -> None:
        self._originals: dict[Path, Path] = {}
        self._lock = threading.Lock()

    def original(self, path: Path | str) -> Path:
        """The file that a copy was made of; the path itself where it is no copy."""
        with self._lock:
            return self._originals.get(Path(path).resolve(), Path(path))

    def forget_missing(self) -> None:
        """Forget copies that were removed."""
        with self._lock:
            self._originals = {copy: file for copy, file in self._originals.items() if copy.is_file()}

    def video(self, path: Path, folder: Path, longest: float) -> Path:
        """The video or photo itself, or a copy of its first `longest` seconds in `folder`. Raises InputError: there is no picture."""
        info = probe(path)
        picture = info.require_video()
        if path.suffix.lower() in PLAYABLE_VIDEO.get(picture.codec, ()) and picture.pixel_format in PLAYABLE_PIXELS:
            return path
        scale = min(1.0, SIDE / max(picture.width, picture.height))
        width, height = (max(round(side * scale / 2), 1) * 2 for side in (picture.width, picture.height))
        still = ["-loop", "1", "-framerate", "5", "-t", str(PHOTO_SECONDS)] if is_photo(info) else ["-t", f"{longest:g}"]
        look = ["-vf", f"scale={width}:{height},setsar=1", "-pix_fmt", "yuv420p", "-c:v", "libx264", "-preset", "ultrafast", "-crf", "26"]
        streams = ["-map", f"0:{picture.index}", "-map", "0:a:0?", "-c:a", "aac", "-ac", "2", "-movflags", "+faststart"]
        return self._copy(path, folder / f"{path.stem}.mp4", still, [*streams, *look])

    def sound(self, path: Path, folder: Path, longest: float) -> Path:
        """The sound file itself, or a copy of the first `longest` seconds of it, or of a video's sound. Raises InputError: no sound."""
        info = probe(path)
        track = info.require_audio()
        if info.video is None and (path.suffix.lower(), track.codec) in PLAYABLE_AUDIO_CODECS:
            return path
        streams = ["-map", f"0:{track.index}", "-vn", "-c:a", "aac", "-ac", "2"]
        return self._copy(path, folder / f"{path.stem}.m4a", ["-t", f"{longest:g}"], streams)

    def _copy(self, path: Path, target: Path, source: list[str], output: list[str]) -> Path:
        target.parent.mkdir(parents=True, exist_ok=True)
        arguments = [*QUIET, "-nostdin", "-protocol_whitelist", "file", *source, "-i", file_url(path), *output, file_url(target)]
        child = Child(["ffmpeg", *arguments])
        if child.finish():
            raise InputError(f"{path} cannot be shown here: {child.reason()}")
        with self._lock:
            self._originals[target.resolve()] = path
        return target


def is_photo(info: MediaInfo) -> bool:
    """Whether a file is a single picture."""
    return info.container == "image2" or info.container.endswith("_pipe")
