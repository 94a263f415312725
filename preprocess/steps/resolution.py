"""Step 5: keeps clips that show one face, large enough, in nearly every frame."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from latentsync.constants import VIDEO_FPS
from latentsync.errors import InputError
from latentsync.media.video_reader import VideoReader
from preprocess.clip_writer import keep
from preprocess.step import ClipFile, Options, Outcome, Rejected, Settings, StepDefinition, StepOption

if TYPE_CHECKING:
    from latentsync.faces.detector import Face, FaceDetector

RESOLUTION = StepOption("resolution", int, 256, "side of the aligned faces in pixels; smaller faces are rejected")

STRIDE = 5  # every fifth frame is analysed
MAX_BAD = 0.05  # share of these frames that may show no face, several, or a small one


@dataclass(frozen=True)
class HighResolution:
    """Detects faces in every fifth frame as inference does; a face counts from 24 pixels on, by the shorter side of its box."""

    detector: "FaceDetector"
    resolution: int

    def __call__(self, clip: ClipFile, folder: Path) -> Outcome:
        """Keeps the file as it is, with the median size of its face."""
        found = [self.faces(frame) for frame in VideoReader(clip.path, fps=Fraction(VIDEO_FPS, STRIDE)).frames()]
        sizes = [min(faces[0].width, faces[0].height) for faces in found if len(faces) == 1]
        facts = {"face_size": round(float(np.median(sizes))) if sizes else None, "most_faces": max(map(len, found))}
        small = f"face smaller than {self.resolution} px"
        faults = {  # reason -> how many frames, and what they show
            "no face": (sum(not faces for faces in found), "no face"),
            "several people": (sum(len(faces) > 1 for faces in found), f"more than one face, at most {facts['most_faces']}"),
            small: (
                sum(size < self.resolution for size in sizes),
                f"a {small}: the smallest has {min(sizes, default=0):.0f} px, the median one {facts['face_size']} px",
            ),
        }
        if sum(count for count, _ in faults.values()) > MAX_BAD * len(found):
            reason, (count, shown) = max(faults.items(), key=lambda fault: fault[1][0])
            return [Rejected(reason, f"{count} of {len(found)} analysed frames of {clip.name} show {shown}", facts)]
        return [keep(clip, folder, facts)]

    def faces(self, frame: np.ndarray) -> "list[Face]":
        """The faces of a frame uint8 h w 3 that count, in its pixels."""
        from latentsync.faces.detector import is_plausible, shrink
        from latentsync.faces.plan import MIN_WIDTH

        picture = shrink(frame, self.detector.long_side)
        scale = max(frame.shape[:2]) / max(picture.shape[:2])
        faces = [face.scaled(scale) for face in self.detector.detect(picture)]
        return [face for face in faces if is_plausible(face) and face.width >= MIN_WIDTH]


def detector_settings(options: Options, checkpoints: Path) -> Settings:
    """The settings of the steps that detect faces: their size, and the detector that inference would use with these weight files."""
    from latentsync.weights import weights_path

    if options["resolution"] < 32 or options["resolution"] % 8:
        raise InputError(f"The resolution {options['resolution']} cannot be trained on: use a multiple of 8 such as 256 or 512.")
    is_complete = all(weights_path(name, checkpoints).is_file() for name in ("s3fd", "2dfan4"))
    return {"resolution": options["resolution"], "detector": "face-alignment" if is_complete else "mtcnn"}


def open_detector(settings: Settings, checkpoints: Path, device: str) -> "FaceDetector":
    from latentsync.faces.detector import build_detector
    from latentsync.weights import weights_path

    return build_detector(settings["detector"], weights_path("s3fd", checkpoints), weights_path("2dfan4", checkpoints), device)


def open_high_resolution(settings: Settings, checkpoints: Path, device: str) -> HighResolution:
    return HighResolution(open_detector(settings, checkpoints, device), settings["resolution"])


STEP = StepDefinition(
    "high_resolution",
    open_high_resolution,
    "high_resolution",
    options=(RESOLUTION,),
    settings=detector_settings,
    columns=("face_size",),
    device="gpu",
    is_filter=True,
)
