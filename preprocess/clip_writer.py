"""How steps write clips: frame-exact cuts, one good encode."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ffmpeg
import numpy as np

from latentsync.constants import AUDIO_SAMPLE_RATE, VIDEO_FPS
from latentsync.errors import InputError, LatentSyncError, OutputError, first_line
from latentsync.media.files import VIDEO_EXTENSIONS, staged
from latentsync.media.probe import DISK_FULL, QUIET, Child, Colour, file_url, probe, write_all
from preprocess.step import ClipFile, Facts, Kept

SAMPLES_PER_FRAME = AUDIO_SAMPLE_RATE // VIDEO_FPS  # of sound, 640
CRF = 13  # measured against its source at 1080x1920: SSIM 0.995
PRESET = "veryfast"  # half the bytes of superfast for a third more time
THREADS = 2  # of each decoder and encoder: many clips are worked on at once, and the encoder's result depends on the number
HEAD_KEYS = 7  # frames at the head of a face clip that are key frames: up to six can go without another encode
COLOUR = Colour("tv", "bt709", "bt709", "bt709")  # of every clip that is made of RGB frames
# No B frames: whatever begins at a key frame can be copied, to any frame. A key frame at each change of scene and once a second.
PICTURE: dict[str, Any] = {
    **{"c:v": "libx264", "preset": PRESET, "crf": CRF, "pix_fmt": "yuv420p", "threads": THREADS},
    **{"bf": 0, "g": VIDEO_FPS, "keyint_min": 1},
}
ENCODE_SETTINGS = {"fps": VIDEO_FPS, "sample_rate": AUDIO_SAMPLE_RATE, "crf": CRF, "preset": PRESET}  # of a step that encodes
# FLAC in .mp4 is in the standard and plays in browsers; this word is what older ffmpeg asks for before it writes it.
SOUND: dict[str, Any] = {"c:a": "flac", "ar": AUDIO_SAMPLE_RATE, "ac": 1, "sample_fmt": "s16", "strict": "experimental"}
_PLAIN: dict[str, Any] = {"map_metadata": -1, "map_chapters": -1, "movflags": "+faststart"}


def media_input(path: Path, **options: object) -> Any:
    """A file as ffmpeg's input, nothing but this file."""
    return ffmpeg.input(file_url(path), protocol_whitelist="file", threads=THREADS, **options)


def whole_sound(frames: int) -> str:
    """The ffmpeg filters that give sound for exactly so many frames: cut, or silence at the end."""
    return f"asetpts=PTS-STARTPTS,apad,atrim=end_sample={frames * SAMPLES_PER_FRAME}"


def write_clip(target: Path, streams: Iterable[Any], options: dict[str, Any], frames: Iterable[np.ndarray] = ()) -> None:
    """Have ffmpeg write `target` whole, of streams (picture first) and `frames` uint8 h w 3. Raises OutputError (disk), LatentSyncError."""
    with staged(target) as temporary:
        node = ffmpeg.output(*streams, file_url(temporary), **_PLAIN, **options)
        child = Child(["ffmpeg", *QUIET, *ffmpeg.get_args(node, overwrite_output=True)], feed=True)
        try:
            assert child.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # ffmpeg has given up; its exit status says so
                for frame in frames:
                    write_all(child.stdin, np.ascontiguousarray(frame))
            status = child.finish()
        except BaseException:
            child.kill()
            raise
        full = any(DISK_FULL in line for line in child.errors())
        if status or full:
            raise (OutputError if full else LatentSyncError)(f"{target} was not written: ffmpeg stopped with: {child.reason()}")


def place(source: Path, target: Path) -> None:
    """Put a file that a step leaves as it is into the step's folder: a second name of the same bytes, or a copy."""
    with staged(target) as temporary:
        temporary.unlink()
        try:
            os.link(source, temporary)
        except OSError:
            try:
                shutil.copyfile(source, temporary)
            except OSError as error:
                raise OutputError(f"cannot write {target}: {(error.strerror or str(error)).lower()}") from None


def clip_path(folder: Path, name: str, number: int | None = None) -> Path:
    """Where a step writes the clip `name`, or the piece `number` of it: .mp4, and different for talk.mp4, talk.mkv and talk."""
    stem = name.removesuffix(".mp4")
    if stem == name or Path(stem).suffix.lower() in VIDEO_EXTENSIONS:  # talk.mkv beside talk.mp4
        stem = name if Path(name).suffix else f"{name}.raw"
    return folder / (f"{stem}.mp4" if number is None else f"{stem}_{number:03d}.mp4")


def keep(clip: ClipFile, folder: Path, facts: Facts) -> Kept:
    """Put a clip that a filter leaves as it is into the filter's folder."""
    target = clip_path(folder, clip.name)
    place(clip.path, target)
    return Kept(target, facts)


def piece_facts(clip: ClipFile, start: int, stop: int) -> dict[str, float]:
    """Facts of the frames start..stop (half open) of a clip; seconds, `start` since the beginning of the raw file's picture."""
    begins = float(clip.facts.get("start") or 0.0) + start / VIDEO_FPS
    return {"start": begins, "frames": stop - start, "duration": (stop - start) / VIDEO_FPS}


LEAST_REST = 0.2  # seconds of picture that a step leaves out and gives a reason for; the sound of most recordings ends a few frames early


@dataclass(frozen=True)
class SourceRecording:
    """A clip that a step has written (25 frames a second from time 0, no B frames, 16 kHz), with what cutting needs to know."""

    path: Path
    frames: int
    samples: int  # of sound
    keys: frozenset[int]  # numbers of its key frames
    picture: str  # stream numbers
    sound: str

    @property
    def frames_with_sound(self) -> int:
        return min(self.frames, self.samples // SAMPLES_PER_FRAME)


def open_recording(path: Path) -> SourceRecording:
    """Read the packets of a clip without decoding it. Raises InputError where it is none of the kind."""
    info = probe(path)
    video, audio = info.require_video(), info.require_audio()
    entries = ["-select_streams", str(video.index), "-show_entries", "packet=pts_time,flags", "-of", "csv=p=0"]
    command = ["ffprobe", "-v", "error", "-protocol_whitelist", "file", *entries, file_url(path)]
    answer = subprocess.run(command, capture_output=True, text=True, errors="replace", start_new_session=True, check=False)
    packets = [line.split(",") for line in answer.stdout.split()]  # time, flags
    if answer.returncode or not packets or any(time in ("", "N/A") for time, *_ in packets):
        why = first_line(answer.stderr) if answer.returncode else "it has no clock"
        raise InputError(f"{path} is no clip of this pipeline ({why}): make it again")
    keys = frozenset(round(float(time) * VIDEO_FPS) for time, flags, *_ in packets if "K" in flags)
    samples = round((audio.duration or 0.0) * AUDIO_SAMPLE_RATE)
    return SourceRecording(path, len(packets), samples, keys, str(video.index), str(audio.index))


def cut(recording: SourceRecording, start: int, stop: int, target: Path, sound_start: int | None = None) -> None:
    """Write frames start..stop, sound from `sound_start` on; a whole clip is linked or copied. Raises OutputError, LatentSyncError."""
    count, sound_start = stop - start, start if sound_start is None else sound_start
    if (start, stop, sound_start) == (0, recording.frames, 0) and recording.samples == count * SAMPLES_PER_FRAME:
        place(recording.path, target)
        return
    picture, sound = (media_input(recording.path, ss=f"{frame / VIDEO_FPS:.6f}") for frame in (start, sound_start))
    how = {"c:v": "copy"} if start in recording.keys else PICTURE
    options = {**how, **SOUND, "af": whole_sound(count), "t": f"{count / VIDEO_FPS:.6f}"}
    write_clip(target, [picture[recording.picture], sound[recording.sound]], options)
