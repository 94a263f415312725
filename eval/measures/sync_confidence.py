"""How well picture and sound of a video fit in the eyes of SyncNet v2, on the faces that S3FD follows: two passes over the file.

What is done is what the network's authors do (Chung and Zisserman, Out of Time, 2016; repository joonson/syncnet_python): 25 frames a
second, shots cut by the ContentDetector of PySceneDetect as it comes (a change of 27 of 255, shots of 15 frames or more), faces linked
within a shot, crops of 224 pixels. Crops go to the network as they are, without the lossy file that the authors' program puts between.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from scenedetect import FrameTimecode
from scenedetect.detectors import ContentDetector
from torch import Tensor

from latentsync.constants import AUDIO_SAMPLE_RATE, VIDEO_FPS
from latentsync.data.catalog import LARGEST_LAG
from latentsync.errors import InputError
from latentsync.faces.cuts import CUT_SIDE, shrink
from latentsync.media.audio import AudioSamples
from latentsync.media.ffmpeg import MediaInfo
from latentsync.media.video import VideoSource
from latentsync.third_party.face_tracks import MIN_DETECTIONS, MIN_SIDE, FaceTrack, crop_face, crop_path, link_faces
from latentsync.third_party.sync_search import MAX_SHIFT, Offset, OffsetSearch, over_tracks
from latentsync.third_party.syncnet_mfcc import Samples, mfcc
from latentsync.third_party.syncnet_v2 import FRAMES, to_picture, window_count


class SyncResult(NamedTuple):
    """How picture and sound of a video lie to each other; means over its faces."""

    offset: int  # frames; +3: the sound of a frame is heard three frames before it is seen
    confidence: float
    best: float  # at the offset: the least distance of SyncNet v2, or the largest cosine of a SyncNet of this project
    tracks: int  # faces that were followed and compared
    frames: int  # ... in all


class FindsFaces(Protocol):
    """What finds the faces of pictures, such as `SyncNetDetector`."""

    def boxes(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The faces of each frame: k 5."""


class Embeds(Protocol):
    """What embeds pictures and sound, such as `SyncNetEval`."""

    batch_size: int

    def look(self, pictures: list[np.ndarray]) -> Tensor:
        """Embeddings of each five successive pictures, uint8 224 224 3 BGR: n d."""

    def listen(self, columns: np.ndarray, start: int, count: int) -> Tensor:
        """Embeddings of windows start..start+count of coefficients 13 t: n d."""


class TrackReader:
    """Offset, confidence and distance of video files by SyncNet v2.

    Args:
        detector, network: ready, on whatever device.
        published: count windows as the published program does, which leaves out the last one.
    """

    def __init__(self, detector: FindsFaces, network: Embeds, published: bool = False) -> None:
        self.detector, self.network, self.published = detector, network, published

    def read(self, video: Path, sound: Path | None = None) -> SyncResult:
        """Measure a video with its own sound, or with that of another file. Raises InputError where that cannot be done."""
        source = VideoSource(video)
        with open_sound(video, sound) as samples:
            tracks = find_tracks(source.frames(), self.detector)
            if not tracks:
                raise InputError(
                    f"{video} shows no face that S3FD follows within one shot for more than {MIN_DETECTIONS} frames, "
                    f"over {MIN_SIDE} pixels wide or high: use a longer or larger one"
                )
            results = self._compare(source, tracks, samples)
        if not results:
            raise InputError(f"{video} has too little sound beside its faces: use a file whose sound is as long as its picture")
        whole = over_tracks(list(results.values()))
        distance = float(np.mean([result.distance for result in results.values()]))
        frames = sum(len(tracks[place].boxes) for place in results)
        return SyncResult(whole.offset, whole.confidence, distance, len(results), frames)

    def _compare(self, source: VideoSource, tracks: list[FaceTrack], samples: Samples) -> dict[int, Offset]:
        """The result of each track that has a window, by its place in the list; all tracks are read in one pass."""
        waiting = [(place, _TrackReading(track, samples, self.network, self.published)) for place, track in enumerate(tracks)]
        results: dict[int, Offset] = {}
        first, last = tracks[0].start, max(track.stop for track in tracks)
        for number, frame in enumerate(source.frames(first, last), first):
            for place, reading in waiting:
                reading.add(number, frame)
                if number == reading.track.stop - 1 and (result := reading.finish()) is not None:
                    results[place] = result
            waiting = [(place, reading) for place, reading in waiting if reading.track.stop > number + 1]
        ended = {place: reading.finish() for place, reading in waiting}  # the second pass gave fewer frames
        return results | {place: result for place, result in ended.items() if result is not None}


class Excerpt:
    """Part of a recording, of which pieces can be had without holding it; silence where the recording does not reach.

    Args:
        samples: the recording.
        start, stop: where the part lies in it; `start` may be negative.
    """

    def __init__(self, samples: Samples, start: int, stop: int) -> None:
        self._samples, self._start, self._length = samples, start, max(0, stop - start)

    def __len__(self) -> int:
        """Number of samples."""
        return self._length

    def __getitem__(self, part: slice) -> np.ndarray:
        """The samples of a slice: float32, or what the recording gives."""
        start, stop, _ = part.indices(self._length)
        start, stop = start + self._start, max(start, stop) + self._start
        found = self._samples[min(max(start, 0), len(self._samples)) : max(stop, 0)]
        before = min(max(-start, 0), stop - start)
        return np.pad(found, (before, stop - start - before - len(found)))


@contextmanager
def open_sound(video: Path, sound: Path | None = None) -> Iterator[Samples]:
    """The sound of a video as it is heard from its first picture on, or that of another file from its beginning on.

    Raises InputError where there is none, or only silence.
    """
    with AudioSamples(video if sound is None else sound) as samples:
        if samples.is_silent:
            raise InputError(f"{samples.info.path} holds silence only: use a file with sound")
        lead = round((lag(samples.info) if sound is None else 0.0) * AUDIO_SAMPLE_RATE)
        yield Excerpt(samples, -lead, len(samples))


def lag(info: MediaInfo) -> float:
    """Seconds by which the sound of a file begins after its picture; 0 for less than a frame, which delays of codecs pretend, too."""
    starts = [stream and stream.start_time for stream in (info.audio, info.video)]
    if starts[0] is None or starts[1] is None:
        return 0.0
    late = starts[0] - starts[1]
    return late if abs(late) > LARGEST_LAG else 0.0


def find_tracks(frames: Iterable[np.ndarray], detector: FindsFaces) -> list[FaceTrack]:
    """The faces of a video, none of them across a cut: one pass, of which a few numbers a frame are kept."""
    cuts: set[int] = set()
    detections = list(detector.boxes(noting_cuts(frames, cuts)))
    return link_faces(detections, cuts)


def noting_cuts(frames: Iterable[np.ndarray], cuts: set[int]) -> Iterator[np.ndarray]:
    """The frames, uint8 h w 3, RGB, as they are; numbers of those that begin a shot are added to `cuts`."""
    finder = ContentDetector()
    for number, frame in enumerate(frames):
        small = np.ascontiguousarray(shrink(frame, CUT_SIDE)[..., ::-1])  # scenedetect reads BGR
        cuts.update(cut.frame_num for cut in finder.process_frame(FrameTimecode(number, float(VIDEO_FPS)), small))
        yield frame


class _TrackReading:
    """One face and its sound, frame by frame; as many crops as one batch needs are held."""

    def __init__(self, track: FaceTrack, samples: Samples, network: Embeds, published: bool) -> None:
        self.track, self._network, self._published = track, network, published
        own = track.samples
        self._sound = Excerpt(samples, own.start, min(own.stop, len(samples)))
        self._windows = window_count(len(track.boxes), len(self._sound), published)
        self._places = crop_path(track.boxes)  # n 3
        self._crops: list[np.ndarray] = []
        self._columns: np.ndarray | None = None  # 13 t, once the face begins
        self._search, self._done, self._seen = OffsetSearch(MAX_SHIFT), 0, 0

    def add(self, number: int, frame: np.ndarray) -> None:
        """Take a frame of the video, whether it shows this face or not."""
        if not self.track.start <= number < self.track.stop or self._done == self._windows:
            return
        self._crops.append(to_picture(crop_face(frame, self._places[number - self.track.start])))
        self._seen += 1
        if len(self._crops) == self._network.batch_size + FRAMES - 1:
            self._compare(self._network.batch_size)

    def finish(self) -> Offset | None:
        """The result once all frames were added; None where there is no window."""
        self._windows = min(self._windows, window_count(self._seen, len(self._sound), self._published))
        self._compare(len(self._crops) - FRAMES + 1)
        return self._search.finish() if self._done else None

    @torch.inference_mode()
    def _compare(self, count: int) -> None:
        """Compare the next `count` windows, as far as they count."""
        count = min(count, self._windows - self._done)
        if count <= 0:
            return
        if self._columns is None:
            self._columns = mfcc(self._sound).astype(np.float32)
        seen = self._network.look(self._crops[: count + FRAMES - 1])
        self._search.add(seen, self._network.listen(self._columns, self._done, count))
        self._done += count
        self._crops = self._crops[count:]
