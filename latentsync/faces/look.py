"""The look pass: frames stream by once and leave a plan behind."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from latentsync.faces.choice import FaceChoice
from latentsync.faces.cuts import shrink, with_cuts
from latentsync.faces.detector import Face, FaceDetector, FaceFollower, overlap
from latentsync.faces.plan import FacePlan, PlanBuilder

SAME_FACE = 0.3  # overlap of two boxes in one picture from which they show one face
SURE = 0.95  # score with which a followed face stands although full detection does not see it
MAX_FOLLOWED = 8  # faces of one picture, the largest first: a crowd must not stop the work

Sighting = tuple[list[Face], bool]  # the faces of a frame, and whether a new shot begins with it


def plan_spans(
    frames: Iterable[np.ndarray],
    detector: FaceDetector,
    resolution: int,
    fps: float,
    choice: FaceChoice | None = None,
    progress: Callable[[int], None] | None = None,
) -> FacePlan:
    """Looks at frames uint8 [h w 3] RGB in order and says which get a new mouth, with which transform, and why others do not.

    `progress` is called with the number of frames looked at. Holds a handful of shrunken pictures, whatever the length.
    Raises InputError when `choice` names a face that is not there.
    """
    builder = PlanBuilder(resolution, fps, choice or FaceChoice(), detector.smoothing)
    for count, (faces, is_cut) in enumerate(look(frames, detector), start=1):
        builder.add(faces, is_cut)
        if progress is not None:
            progress(count)
    return builder.finish()


def look(frames: Iterable[np.ndarray], detector: FaceDetector) -> Iterator[Sighting]:
    """The faces of every frame, in pixels of the frame, and where shots begin."""
    scales: list[float] = []  # of the frames between the two ends of this stream: a handful

    def shrunken() -> Iterator[np.ndarray]:
        for frame in frames:
            picture = shrink(frame, detector.long_side)
            scales.append(max(frame.shape[:2]) / max(picture.shape[:2]))
            yield picture

    pictures = with_cuts(shrunken())
    sightings = follow_faces(pictures, detector) if isinstance(detector, FaceFollower) else detect_each(pictures, detector)
    for faces, is_cut in sightings:
        scale = scales.pop(0)
        yield (faces if scale == 1 else [face.scaled(scale) for face in faces]), is_cut


def detect_each(pictures: Iterable[tuple[np.ndarray, bool]], detector: FaceDetector) -> Iterator[Sighting]:
    """Full detection in every picture."""
    for picture, is_cut in pictures:
        yield detector.detect(picture), is_cut


def follow_faces(pictures: Iterable[tuple[np.ndarray, bool]], detector: FaceDetector) -> Iterator[Sighting]:
    """Full detection at cuts, every `stride` frames and where a face was lost; in between faces are followed.

    A face that full detection finds first is followed backwards too, so that it begins where it came into sight.
    """
    waiting: list[tuple[np.ndarray, list[Face], bool]] = []  # since the last full detection
    faces: list[Face] = []
    for picture, is_cut in pictures:
        if is_cut:
            yield from sightings_of(waiting)
            waiting, faces = [], []
        found = detector.follow(picture, faces)
        faces = distinct([face for face in found if face is not None])
        if is_cut or not waiting or len(waiting) >= detector.stride or None in found:
            faces, new = full_look(picture, faces, detector)
            follow_back(waiting, new, detector)
            yield from sightings_of(waiting)
            waiting = []
        waiting.append((picture, faces, is_cut))
    yield from sightings_of(waiting)


def full_look(picture: np.ndarray, followed: list[Face], detector: FaceDetector) -> tuple[list[Face], list[Face]]:
    """All faces of a picture where some were followed, and those of them that are new."""
    detected = detector.detect(picture)
    kept = [face for face in followed if face.score >= SURE or touches(face, detected)]
    fresh = [face for face in detected if not touches(face, kept)]
    refined = [again or face for face, again in zip(fresh, detector.follow(picture, fresh), strict=True)]
    faces = distinct(kept + refined)
    return faces, [face for face in faces if not any(face is old for old in kept)]


def follow_back(waiting: list[tuple[np.ndarray, list[Face], bool]], new: list[Face], detector: FaceDetector) -> None:
    """Adds new faces to the earlier pictures that already show them."""
    for picture, faces, _ in reversed(waiting):
        found = [face for face in detector.follow(picture, new) if face is not None]
        new = [face for face in found if not touches(face, faces)]
        if not new:
            return
        faces += new


def sightings_of(waiting: list[tuple[np.ndarray, list[Face], bool]]) -> list[Sighting]:
    """What is known of pictures, without the pictures."""
    return [(faces, is_cut) for _, faces, is_cut in waiting]


def touches(face: Face, others: list[Face]) -> bool:
    """Whether one of the others is the same face."""
    return any(overlap(face.box, other.box) >= SAME_FACE for other in others)


def distinct(faces: list[Face]) -> list[Face]:
    """At most `MAX_FOLLOWED` faces, each only once, the surer of two that fell together."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: -face.score):
        if not touches(face, kept):
            kept.append(face)
    return sorted(kept, key=lambda face: -face.width * face.height)[:MAX_FOLLOWED]
