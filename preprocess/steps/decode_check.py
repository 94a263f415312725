"""Step 1: finds broken files by decoding them from first to last frame. It writes nothing: what it keeps is the raw file."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import ffmpeg

from latentsync.errors import InputError, LatentSyncError, StalledError
from latentsync.media.files import check_readable
from latentsync.media.probe import DISK_FAILS, QUIET, Child, MediaInfo, file_url, probe
from preprocess.clip_writer import media_input
from preprocess.step import ClipFile, Kept, Outcome, Rejected, Settings, StepDefinition
from preprocess.steps.segments import MIN_SECONDS

MARGIN = 1.0  # seconds at either end that may be damaged: a recording that was switched on or off inside a picture
MAX_MISSING = 0.01  # share of the promised length that may be missing, or MARGIN where that is more
_PROMISES = frozenset({"mov", "matroska", "avi", "flv", "asf"})  # containers that say how long they are; others are estimated

BROKEN, UNREADABLE, NO_PICTURE, NO_SOUND = "broken", "unreadable", "no picture", "no sound"


@dataclass(frozen=True)
class DecodeCheck:
    """Decodes picture and sound; broken: errors but in the first or last second, or too early an end, that no disk or ffmpeg explains."""

    min_seconds: float

    def __call__(self, clip: ClipFile, folder: Path) -> Outcome:
        """Keeps the file itself, with its length, size and rate as facts. LatentSyncError: the disk gives no file, or ffmpeg was ended."""
        try:
            check_readable(clip.path)
        except InputError as error:
            return [Rejected(UNREADABLE, str(error))]
        try:
            info = probe(clip.path)
        except StalledError as error:
            raise LatentSyncError(str(error)) from None
        except InputError as error:
            return [Rejected(BROKEN, str(error))]
        if info.video is None or info.audio is None:
            reason = NO_PICTURE if info.video is None else NO_SOUND
            return [Rejected(reason, f"{clip.source} has {reason}: the pipeline needs both")]
        seconds, problem = decode(info)
        length = info.duration or 0.0
        if problem is not None:
            inner = length - 2 * MARGIN  # seconds
            again = decode(info, ss=f"{MARGIN:.3f}", t=f"{inner:.3f}")[1] if inner > self.min_seconds else problem
            if again is not None:
                return [Rejected(BROKEN, f"{clip.source} cannot be decoded to its end: {again}")]
            seconds = length
        elif missing := missing_seconds(info, seconds):
            return [Rejected(BROKEN, f"{clip.source} ends {missing:.1f} s before the length it promises")]
        facts = {
            **{"width": info.video.width, "height": info.video.height, "fps": round(float(info.video.average_fps), 3)},
            **{"codec": info.video.codec, "duration": round(seconds, 3), "damaged_end": problem is not None},
        }
        if seconds < self.min_seconds:
            return [Rejected(f"shorter than {self.min_seconds:g} s", f"{clip.source} lasts {seconds:.2f} s", facts)]
        return [Kept(clip.path, facts)]


def missing_seconds(info: MediaInfo, seconds: float) -> float:
    """By how much a file that was decoded without an error is shorter than it says, where that is more than it may be; else 0."""
    if info.duration is None or not _PROMISES & set(info.container.split(",")):
        return 0.0
    missing = info.duration - seconds
    return missing if missing > max(MARGIN, MAX_MISSING * info.duration) else 0.0


def decode(info: MediaInfo, **part: str) -> tuple[float, str | None]:
    """Decode a file, or a part, to the first error: seconds decoded, and the problem or None. LatentSyncError: not the file's fault."""
    node = media_input(info.path, **part)
    streams = [node[str(info.require_video().index)], node[str(info.require_audio().index)]]
    arguments = ffmpeg.get_args(ffmpeg.output(*streams, "-", f="null"))
    child = Child(["ffmpeg", *QUIET, "-nostdin", "-xerror", "-progress", "pipe:1", *arguments], stdout=subprocess.PIPE)
    reached = 0.0
    try:
        assert child.stdout is not None
        for line in child.stdout:
            key, _, value = line.decode("ascii", "replace").strip().partition("=")
            if key == "out_time_us" and value.lstrip("-").isdigit():
                reached = max(reached, int(value) / 1e6)
        status = child.finish()
    finally:
        child.kill()
    if status == 0:
        return reached, None
    problem = child.reason().replace(f"{file_url(info.path)}: ", "")
    if status < 0 or DISK_FAILS in problem:
        why = f"ffmpeg was ended by signal {-status}" if status < 0 else problem
        raise LatentSyncError(f"{info.path} could not be decoded to see whether it is whole ({why}): look at the machine, then try again")
    return reached, problem


def open_decode_check(settings: Settings, checkpoints: Path, device: str) -> DecodeCheck:
    return DecodeCheck(**settings)


STEP = StepDefinition("decode_check", open_decode_check, options=(MIN_SECONDS,), is_filter=True)
