"""Step 3: one clip for each shot, cut where PySceneDetect sees a new one begin."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import ffmpeg
import numpy as np

from latentsync.constants import VIDEO_FPS
from latentsync.errors import InputError
from latentsync.media.probe import QUIET, Child, probe, read_exactly
from preprocess.clip_writer import LEAST_REST, clip_path, cut, media_input, open_recording, piece_facts
from preprocess.step import ClipFile, ClipProcessor, Kept, Outcome, Rejected, Settings, StepDefinition
from preprocess.steps.decode_check import NO_SOUND

SOUND_ENDS = "sound ends before the picture"


def split_shots(clip: ClipFile, folder: Path) -> Outcome:
    """Cuts and dissolves are found as in inference; the last shot ends where the sound does, and the picture after it is rejected."""
    from latentsync.faces.tracking import shot_starts

    recording = open_recording(clip.path)
    end = recording.frames_with_sound
    shots = shot_starts(small_frames(clip.path))
    if not shots:
        raise InputError(f"{clip.path} holds no frame that can be decoded: make it again")
    starts = [frame for frame in shots if frame < end]
    outcome: list[Kept | Rejected] = []
    for number, (start, stop) in enumerate(zip(starts, [*starts[1:], end], strict=True)):
        target = clip_path(folder, clip.name, number)
        cut(recording, start, stop, target)
        outcome.append(Kept(target, piece_facts(clip, start, stop)))
    rest = (recording.frames - end) / VIDEO_FPS
    if outcome and rest >= LEAST_REST:
        why = f"the sound of {clip.source} ends at {end / VIDEO_FPS:.2f} s, {rest:.2f} s before its picture"
        outcome.append(Rejected(SOUND_ENDS, why, piece_facts(clip, end, recording.frames)))
    return outcome or [Rejected(NO_SOUND, f"{clip.source} has no sound from its first picture on")]


def small_frames(path: Path) -> Iterator[np.ndarray]:
    """Every frame of a clip, shrunk by ffmpeg to what cuts are looked for in: uint8 h w 3, RGB."""
    from latentsync.faces.tracking import CUT_SIDE

    video = probe(path).require_video()
    share = min(1.0, CUT_SIDE / max(video.width, video.height))
    width, height = (max(round(side * share), 1) for side in (video.width, video.height))
    node = ffmpeg.output(
        media_input(path)[str(video.index)], "pipe:1", vf=f"scale={width}:{height}:flags=area", f="rawvideo", pix_fmt="rgb24"
    )
    child = Child(["ffmpeg", *QUIET, "-nostdin", *ffmpeg.get_args(node)], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        while read_exactly(child.stdout, frame := np.empty((height, width, 3), np.uint8)):  # h w c
            yield frame
        child.finish()
    finally:
        child.kill()


def open_shots(settings: Settings, checkpoints: Path, device: str) -> ClipProcessor:
    return split_shots


STEP = StepDefinition("shots", open_shots, "shot")
