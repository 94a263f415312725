"""Step 3: one clip for each shot, cut where PySceneDetect sees a new one begin."""

from pathlib import Path

from latentsync.constants import VIDEO_FPS
from latentsync.media.video_reader import VideoReader
from preprocess.clip_writer import LEAST_REST, clip_path, cut, open_recording, piece_facts
from preprocess.step import ClipFile, ClipProcessor, Kept, Outcome, Rejected, Settings, StepDefinition
from preprocess.steps.decode_check import NO_SOUND

SOUND_ENDS = "sound ends before the picture"


def split_shots(clip: ClipFile, folder: Path) -> Outcome:
    """Cuts and dissolves are found as in inference; the last shot ends where the sound does, and the picture after it is rejected."""
    from latentsync.faces.tracking import shot_starts

    recording = open_recording(clip.path)
    end = recording.frames_with_sound
    starts = [frame for frame in shot_starts(VideoReader(clip.path).frames()) if frame < end]
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


def open_shots(settings: Settings, checkpoints: Path, device: str) -> ClipProcessor:
    return split_shots


STEP = StepDefinition("shots", open_shots, "shot")
