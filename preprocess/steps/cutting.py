"""Cuts clips at exact frames, sound to the sample: copied from a key frame on, encoded again only where a cut falls between two."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from latentsync.constants import AUDIO_SAMPLE_RATE, VIDEO_FPS
from latentsync.errors import InputError
from latentsync.media.ffmpeg import probe
from latentsync.media.process import Child, file_url
from preprocess.steps.encode import PICTURE, SAMPLES_PER_FRAME, SOUND, media_input, place, whole_sound, write_clip

LEAST_REST = 0.2  # seconds of picture that a step leaves out and gives a reason for; the sound of most recordings ends a few frames early


@dataclass(frozen=True)
class Recording:
    """A clip that a step has written (25 frames a second from time 0, no B frames, 16 kHz), with what cutting needs to know."""

    path: Path
    frames: int
    samples: int  # of sound
    keys: frozenset[int]  # numbers of its key frames
    picture: str  # stream numbers
    sound: str

    @property
    def heard_frames(self) -> int:
        """Frames that have both picture and sound."""
        return min(self.frames, self.samples // SAMPLES_PER_FRAME)


def open_recording(path: Path) -> Recording:
    """Look at a clip without decoding it. Raises InputError where it is none of the kind."""
    info = probe(path)
    video, audio = info.require_video(), info.require_audio()
    packets = _packets(path, video.index)
    samples = round((audio.duration or 0.0) * AUDIO_SAMPLE_RATE)
    keys = frozenset(number for number, is_key in packets if is_key)
    return Recording(path, len(packets), samples, keys, str(video.index), str(audio.index))


def _packets(path: Path, stream: int) -> list[tuple[int, bool]]:
    """Of each packet of the picture its frame number, and whether it is a key frame."""
    entries = ["-select_streams", str(stream), "-show_entries", "packet=pts_time,flags", "-of", "csv=p=0"]
    child = Child(["ffprobe", "-v", "error", "-protocol_whitelist", "file", *entries, file_url(path)], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        text = b"".join(iter(lambda: child.stdout.read(1 << 16), b"")).decode("utf-8", "replace")
        status = child.finish()
    except BaseException:
        child.kill()
        raise
    rows = [line.split(",") for line in text.splitlines() if line.strip()]
    if status or not rows or any(row[0] in ("", "N/A") for row in rows):
        raise InputError(f"{path} is no clip of this pipeline ({child.reason() if status else 'it has no clock'}): make it again")
    return [(round(float(row[0]) * VIDEO_FPS), "K" in row[1]) for row in rows]


def cut(recording: Recording, start: int, stop: int, target: Path, sound_start: int | None = None) -> None:
    """Write the frames start..stop (half open) and their sound, or the sound from frame `sound_start` on.

    Sound that is missing at the end is silence. A cut that leaves everything as it is becomes a second name of the same file.
    Raises OutputError, LatentSyncError.
    """
    count, heard = stop - start, start if sound_start is None else sound_start
    if (start, stop, heard) == (0, recording.frames, 0) and recording.samples == count * SAMPLES_PER_FRAME:
        place(recording.path, target)
        return
    picture, sound = (media_input(recording.path, ss=f"{frame / VIDEO_FPS:.6f}") for frame in (start, heard))
    how = {"c:v": "copy"} if start in recording.keys else PICTURE
    options = {**how, **SOUND, "af": whole_sound(count), "t": f"{count / VIDEO_FPS:.6f}"}
    write_clip(target, [picture[recording.picture], sound[recording.sound]], options)
