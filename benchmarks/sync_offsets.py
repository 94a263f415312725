"""Step av_sync of the data pipeline on clips whose sound was moved by -5 .. 5 frames: the offsets it finds, and those after its correction.

    python -m benchmarks.sync_offsets CLIPS --syncnet_config CONFIG --syncnet WEIGHTS [--clips 8]

CLIPS are videos of aligned faces in sync with their sound, such as rendered ones. A SyncNet of this project takes the place of SyncNet v2,
and the whole picture that of S3FD's boxes.
"""

import argparse
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from latentsync.errors import InputError
from latentsync.media.audio import Samples
from latentsync.media.files import walk_media
from latentsync.mel import log_mel
from latentsync.sync_meter import SyncMeter, compare, load_sync_meter
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
    return ClipFile(path, path.name, path.name)


def offsets(clip: Path, step: AvSync, shift: int, folder: Path) -> tuple[int, int] | None:
    """What the step finds in a clip whose sound comes `shift` frames too early, and in its own result; None where it rejected the clip."""
    recording, moved = open_recording(clip), folder / f"{clip.stem} {shift:+d}.mp4"
    cut(recording, MARGIN, recording.frames_with_sound - MARGIN, moved, sound_start=MARGIN + shift)
    (outcome,) = step(as_clip(moved), folder / "synced")
    if not isinstance(outcome, Kept):
        return None
    (again,) = step(as_clip(outcome.path), folder / "again")
    return int(outcome.facts["offset"] or 0), int(again.facts["offset"] or 0)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sync_offsets", description="Step av_sync on clips of known offsets.")
    parser.add_argument("folder", type=Path, metavar="CLIPS", help="folder of videos of aligned faces in sync with their sound")
    parser.add_argument("--syncnet_config", type=Path, required=True, help="configuration of a SyncNet of pixels")
    parser.add_argument("--syncnet", type=Path, required=True, help="its weights")
    parser.add_argument("--clips", type=int, default=8, help="how many (default %(default)s)")
    arguments = parser.parse_args()
    found = sorted(walk_media(arguments.folder))[: arguments.clips]
    if not found:
        raise InputError(f"{arguments.folder} holds no clips: name a folder of rendered clips")
    meter = load_sync_meter(arguments.syncnet_config, arguments.syncnet)
    step = AvSync(whole_picture, partial(compare_by, meter), 0.0, MARGIN + 1)
    print("shift  clips  kept  found right  1 off at most  0 when asked again")
    with TemporaryDirectory(prefix="latentsync-") as name:
        folder = Path(name)
        plain = [result.path for path in found for result in resample(as_clip(path), folder / "plain") if isinstance(result, Kept)]
        for shift in SHIFTS:
            kept = [pair for clip in plain if (pair := offsets(clip, step, shift, folder)) is not None]
            right, near = (sum(abs(first - shift) <= reach for first, _ in kept) for reach in (0, 1))
            again = sum(second == 0 for _, second in kept)
            print(f"{shift:+5d}  {len(plain):5d}  {len(kept):4d}  {right:11d}  {near:13d}  {again:18d}", flush=True)


if __name__ == "__main__":
    main()
