"""Step 6: faces aligned exactly as in inference, square, with their sound."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import ffmpeg

from latentsync.constants import VIDEO_FPS
from latentsync.media.probe import tag_options, write_filters
from latentsync.media.video_reader import VideoReader
from preprocess.clip_writer import (
    COLOUR,
    ENCODE_SETTINGS,
    HEAD_KEYS,
    LEAST_REST,
    PICTURE,
    SOUND,
    SourceRecording,
    clip_path,
    media_input,
    open_recording,
    piece_facts,
    whole_sound,
    write_clip,
)
from preprocess.step import ClipFile, Kept, Options, Outcome, Rejected, Settings, StepDefinition
from preprocess.steps.resolution import RESOLUTION, detector_settings, open_detector
from preprocess.steps.segments import MIN_SECONDS

if TYPE_CHECKING:
    from latentsync.faces.detector import FaceDetector
    from latentsync.faces.plan import FacePlan, Span

NOT_FOLLOWED = "face not followed"
BATCH = 16  # frames that are aligned together


@dataclass(frozen=True)
class Affine:
    """Finds and aligns faces as inference does; every long enough stretch with a followed face is a clip, the rest is rejected."""

    detector: "FaceDetector"
    resolution: int
    min_seconds: float
    device: str

    def __call__(self, clip: ClipFile, folder: Path) -> Outcome:
        from latentsync.faces.plan import plan_spans

        source, recording = VideoReader(clip.path), open_recording(clip.path)
        plan = plan_spans(source.frames(), self.detector, self.resolution, VIDEO_FPS)
        spans = [span for span in plan.spans if span.stop - span.start >= self.min_seconds * VIDEO_FPS]
        if not spans:
            longest = max((span.stop - span.start for span in plan.spans), default=0)
            why = f"{clip.name} shows one face for at most {longest} of {plan.num_frames} frames in a row{gaps(plan)}"
            return [Rejected(NOT_FOLLOWED, why)]
        whole = len(spans) == 1 and spans[0].stop - spans[0].start == plan.num_frames
        outcome: list[Kept | Rejected] = []
        for number, span in enumerate(spans):
            target = clip_path(folder, clip.name, None if whole else number)
            self.write(source, recording, span, target)
            size = {"width": self.resolution, "height": self.resolution}
            outcome.append(Kept(target, {**piece_facts(clip, span.start, span.stop), **size}))
        rest = plan.num_frames - sum(span.stop - span.start for span in spans)
        if rest >= LEAST_REST * VIDEO_FPS:
            why = f"{rest} of {plan.num_frames} frames of {clip.name} are in no stretch of {self.min_seconds:g} s with one face{gaps(plan)}"
            outcome.append(Rejected(NOT_FOLLOWED, why, {"frames": rest, "duration": rest / VIDEO_FPS}))
        return outcome

    def write(self, source: VideoReader, recording: SourceRecording, span: "Span", target: Path) -> None:
        """One span as a clip; its first frames are key frames, so that later steps may drop them without another encode."""
        import torch

        from latentsync.faces.alignment import warp_faces

        side = self.resolution
        picture = ffmpeg.input("pipe:0", f="rawvideo", pix_fmt="rgb24", video_size=(side, side), framerate=VIDEO_FPS)
        sound = media_input(recording.path, ss=f"{span.start / VIDEO_FPS:.6f}")
        options = {
            **PICTURE, **SOUND, **tag_options(COLOUR), "af": whole_sound(span.stop - span.start),
            "vf": write_filters(COLOUR, "yuv420p"), "force_key_frames": f"expr:lt(n,{HEAD_KEYS})",
        }  # fmt: skip
        frames, matrices = source.frames(span.start, span.stop), torch.from_numpy(span.matrices)
        batches = ((list(islice(frames, BATCH)), matrices[start : start + BATCH]) for start in range(0, len(matrices), BATCH))
        faces = (face for batch in batches for face in warp_faces(*batch, self.resolution, self.device).cpu().numpy())  # uint8 R R 3
        write_clip(target, [picture["v:0"], sound[recording.sound]], options, faces)


def gaps(plan: "FacePlan") -> str:
    """The first frames that were left out and why, in parentheses."""
    reasons = ", ".join(f"{run.reason} in {run.start}-{run.stop}" for run in plan.skipped[:3])
    return f" ({reasons})" if reasons else ""


def affine_settings(options: Options, checkpoints: Path) -> Settings:
    return {**detector_settings(options, checkpoints), **ENCODE_SETTINGS, "min_seconds": options["min_seconds"]}


def open_affine(settings: Settings, checkpoints: Path, device: str) -> Affine:
    detector = open_detector(settings, checkpoints, device)
    return Affine(detector, settings["resolution"], settings["min_seconds"], device)


STEP = StepDefinition("affine", open_affine, "affine_transformed", (RESOLUTION, MIN_SECONDS), affine_settings, device="gpu")
