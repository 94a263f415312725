"""Step 7: keeps clips whose mouth and sound belong together, and moves the sound of those that are apart by a few frames."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from latentsync.constants import VIDEO_FPS
from latentsync.errors import InputError
from latentsync.media.audio import AudioSamples
from latentsync.media.video_reader import VideoReader
from preprocess.clip_writer import clip_path, cut, open_recording
from preprocess.step import ClipFile, Kept, Options, Outcome, Rejected, Settings, StepDefinition, StepOption

if TYPE_CHECKING:
    from latentsync.third_party.face_tracks import FaceTrack
    from latentsync.third_party.sync_search import Offset

SYNC_CONF_THRESHOLD = StepOption("sync_conf_threshold", float, 3.0, "lowest confidence of SyncNet v2 that is kept")
MAX_OFFSET = StepOption("max_offset", int, 6, "largest offset of mouth and sound in frames that is corrected; larger ones are rejected")


@dataclass(frozen=True)
class AvSync:
    """SyncNet v2, counted as published (Chung and Zisserman 2016); offset +3: sound moves three frames later, the first three drop."""

    find_tracks: "Callable[[Iterable[np.ndarray]], list[FaceTrack]]"  # of frames uint8 h w 3, RGB
    compare: "Callable[..., Offset]"  # of the crops of a face and their sound, see `SyncNetEval`
    min_confidence: float
    max_offset: int

    def __call__(self, clip: ClipFile, folder: Path) -> Outcome:
        """The picture is never encoded again, but for offsets of more than six frames."""
        from latentsync.third_party.face_tracks import track_crops
        from latentsync.third_party.sync_search import over_tracks

        source = VideoReader(clip.path)
        tracks = self.find_tracks(source.frames())
        if not tracks:
            return [Rejected("no face track", f"S3FD follows no face of {clip.name} for more than 50 frames")]
        with AudioSamples(clip.path) as samples:
            results = [self.compare(track_crops(source.frames(t.start, t.stop), t), samples[t.samples], published=True) for t in tracks]
        found = over_tracks(results)
        facts = {"offset": found.offset, "confidence": round(found.confidence, 3)}
        if found.confidence < self.min_confidence:
            return [Rejected("low sync confidence", f"{clip.name} has {found.confidence:.2f}, under {self.min_confidence:g}", facts)]
        if abs(found.offset) > self.max_offset:
            return [Rejected("out of sync", f"{clip.name} is {found.offset:+d} frames apart, over {self.max_offset}", facts)]
        target = clip_path(folder, clip.name)
        recording, later, earlier = open_recording(clip.path), max(found.offset, 0), max(-found.offset, 0)
        stop = recording.frames_with_sound - earlier
        cut(recording, later, stop, target, sound_start=earlier)
        frames = stop - later
        return [Kept(target, {**facts, "frames": frames, "duration": frames / VIDEO_FPS})]


def av_sync_settings(options: Options, checkpoints: Path) -> Settings:
    if not 0 <= options["max_offset"] <= 15:
        raise InputError(f"An offset of {options['max_offset']} frames cannot be found: SyncNet looks 15 frames either way.")
    return {"min_confidence": options["sync_conf_threshold"], "max_offset": options["max_offset"]}


def open_av_sync(settings: Settings, checkpoints: Path, device: str) -> AvSync:
    from latentsync.third_party.face_tracks import SyncNetDetector
    from latentsync.third_party.s3fd import load_s3fd
    from latentsync.third_party.syncnet_v2 import SyncNetEval, load_syncnet_v2
    from latentsync.weights import weights_path

    find_tracks = SyncNetDetector(load_s3fd(weights_path("sfd_face", checkpoints)).to(device))
    compare = SyncNetEval(load_syncnet_v2(weights_path("syncnet_v2", checkpoints)).to(device))
    return AvSync(find_tracks, compare, **settings)


STEP = StepDefinition(
    "av_sync",
    open_av_sync,
    "av_synced_{sync_conf_threshold:g}",
    options=(SYNC_CONF_THRESHOLD, MAX_OFFSET),
    settings=av_sync_settings,
    columns=("offset", "confidence"),
    device="gpu",
    weights=("sfd_face", "syncnet_v2"),
    is_filter=True,
)
