"""Step av_sync of the data pipeline on clips whose sound was moved by -5 .. 5 frames: the offsets it finds, and those after its correction.

    python -m benchmarks.sync_offsets CLIPS --syncnet_config CONFIG --syncnet WEIGHTS [--clips 8]

CLIPS are videos of aligned faces in sync with their sound, such as rendered ones. A SyncNet of this project takes the place of SyncNet v2,
and the whole picture that of S3FD's boxes.
"""

import argparse
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from eval.metrics.sync import SyncMeter, compare, load_sync_meter
from latentsync.errors import InputError
from latentsync.media.audio import Samples
from latentsync.media.files import walk_media
from latentsync.mel import log_mel
from latentsync.third_party.face_tracks import FaceTrack
from latentsync.third_party.sync_search import Offset
from preprocess.clip_writer import cut, open_recording
from preprocess.step import ClipFile, Kept
from preprocess.steps.av_sync import AvSync
from preprocess.steps.resample import resample

SHIFTS = range(-5, 6)  # frames
MARGIN = 5  # frames at either end, from which the moved sound comes
CROP_SIDES = 2.8  # sides of a crop of a track in halves of its box


def whole_picture(frames: Iterable[np.ndarray]) -> list[FaceTrack]:
    """The track whose crops are the frames themselves, which are square."""
    sizes = [len(frame) for frame in frames]
    half, middle = sizes[0] / CROP_SIDES, sizes[0] / 2
    return [FaceTrack(0, np.tile([middle - half, 0, middle + half, 2 * half], (len(sizes), 1)))]


def compare_by(meter: SyncMeter, frames: Iterable[np.ndarray], samples: Samples, published: bool = False) -> Offset:
    """Offset and confidence of faces uint8 h w 3 and their sound; distances are cosines with the other sign."""
    pictures = meter.embed_faces(torch.from_numpy(np.stack(list(frames))))
    found = compare(pictures, meter.embed_audio(log_mel(samples[0 : len(samples)])))
    return Offset(found.offset, found.confidence, -np.array(found.cosines))


def as_clip(path: Path) -> ClipFile:
    """A file as a step is given it."""
    return ClipFile(path, path.name, path.name)


def moved(clip: Path, shift: int, folder: Path) -> Path:
    """A clip without its ends, whose sound comes `shift` frames too early."""
    recording, target = open_recording(clip), folder / f"{clip.stem} {shift:+d}.mp4"
    cut(recording, MARGIN, recording.frames_with_sound - MARGIN, target, sound_start=MARGIN + shift)
    return target


def offsets(clip: Path, step: AvSync, shift: int, folder: Path) -> tuple[int, int] | None:
    """The offset that the step found, and the one that its result has; None where it rejected the clip."""
    (outcome,) = step(as_clip(moved(clip, shift, folder)), folder / "synced")
    if not isinstance(outcome, Kept):
        return None
    (again,) = step(as_clip(outcome.path), folder / "again")
    return int(outcome.facts["offset"] or 0), int(again.facts["offset"] or 0)


def row(shift: int, found: Sequence[tuple[int, int] | None]) -> str:
    """One line of the table."""
    kept = [pair for pair in found if pair is not None]
    right, near = (sum(abs(first - shift) <= reach for first, _ in kept) for reach in (0, 1))
    again = sum(second == 0 for _, second in kept)
    return f"{shift:+5d}  {len(found):5d}  {len(kept):4d}  {right:11d}  {near:13d}  {again:18d}"


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sync_offsets", description="Step av_sync on clips of known offsets.")
    parser.add_argument("folder", type=Path, metavar="CLIPS", help="folder of videos of aligned faces in sync with their sound")
    parser.add_argument("--syncnet_config", type=Path, required=True, help="configuration of a SyncNet of pixels")
    parser.add_argument("--syncnet", type=Path, required=True, help="its weights")
    parser.add_argument("--clips", type=int, default=8, help="how many (default %(default)s)")
    parser.add_argument("--min_confidence", type=float, default=0.0, help="cosine under which a clip is rejected (default %(default)s)")
    arguments = parser.parse_args()
    found = sorted(walk_media(arguments.folder))[: arguments.clips]
    if not found:
        raise InputError(f"{arguments.folder} holds no clips: name a folder of rendered clips")
    meter = load_sync_meter(arguments.syncnet_config, arguments.syncnet)
    step = AvSync(whole_picture, partial(compare_by, meter), arguments.min_confidence, MARGIN + 1)
    print("shift  clips  kept  found right  1 off at most  0 when asked again")
    with TemporaryDirectory(prefix="latentsync-") as name:
        folder = Path(name)
        plain = [result.path for path in found for result in resample(as_clip(path), folder / "plain") if isinstance(result, Kept)]
        for shift in SHIFTS:
            print(row(shift, [offsets(clip, step, shift, folder) for clip in plain]), flush=True)


if __name__ == "__main__":
    main()
