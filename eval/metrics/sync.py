"""Sync confidence and offset: SyncNet v2 (as published) and a SyncNet of this project."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from scenedetect import FrameTimecode
from scenedetect.detectors import ContentDetector
from torch import Tensor

from eval.metrics.base import Case, Chunk, Column, Numbers
from latentsync.config import load_syncnet_config
from latentsync.constants import AUDIO_SAMPLE_RATE, TEMPLATE_RESOLUTION, VIDEO_FPS
from latentsync.data.cache import resize_faces
from latentsync.data.clip_index import LARGEST_LAG
from latentsync.data.features import audio_frames
from latentsync.data.sampling import SYNCNET_LENGTHS, choose_syncnet
from latentsync.errors import InputError, WeightsError
from latentsync.faces.alignment import warp_faces
from latentsync.faces.detector import FaceDetector, build_detector, shrink
from latentsync.faces.mask import to_pixels
from latentsync.faces.plan import Span, plan_spans
from latentsync.faces.tracking import CUT_SIDE
from latentsync.losses.sync import IN_SYNC, syncnet_frames
from latentsync.media.audio import AudioSamples
from latentsync.media.probe import MediaInfo, probe
from latentsync.media.video_reader import VideoReader
from latentsync.mel import log_mel, mel_window
from latentsync.models.syncnet import SyncNet, load_syncnet
from latentsync.third_party.face_tracks import MIN_DETECTIONS, MIN_SIDE, FaceTrack, SyncNetDetector, crop_face, crop_path, link_faces
from latentsync.third_party.s3fd import load_s3fd
from latentsync.third_party.sync_search import MAX_SHIFT, Offset, OffsetSearch, over_tracks
from latentsync.third_party.syncnet_mfcc import MfccSamples, mfcc
from latentsync.third_party.syncnet_v2 import FRAMES, SyncNetEval, load_syncnet_v2, to_picture, window_count
from latentsync.weights import CHECKPOINTS, WEIGHTS, file_sha256, weights_path

MAX_OFFSET = 15  # frames to either side, as far as SyncNet's authors look
WINDOWS_AT_ONCE = 16  # windows that go through a network together


class SyncReading(NamedTuple):
    """How picture and sound of a clip lie to each other."""

    offset: int  # frames by which the sound comes too early; 0 where both fit
    confidence: float  # cosine at the offset less the median over all shifts
    cosines: tuple[float, ...]  # mean cosine where the sound is moved by -MAX_SHIFT .. MAX_SHIFT frames


class PairTally(NamedTuple):
    """How often SyncNet told pairs that belong together from pairs that do not."""

    pairs: int
    right: int
    right_shuffled: int  # ... had the labels been shuffled


def compare(seen: Tensor, heard: Tensor, max_shift: int = MAX_OFFSET) -> SyncReading:
    """The reading of unit vectors, one for each window that begins at frame 0, 1, ...: of the pictures n d and of the sound m d.

    At each shift the cosine is averaged over the windows that have a partner there, so that the ends of a clip favour no shift. Where the
    sound of frame i belongs to the picture of frame i + 3 the offset is 3. Raises InputError where a shift has no pair at all.
    """
    if min(len(seen), len(heard)) <= max_shift:
        raise InputError(
            f"A clip of {len(seen)} windows of pictures and {len(heard)} of sound is too short to move its sound by {max_shift} frames: "
            "measure longer clips"
        )
    cosines = []
    for shift in range(-max_shift, max_shift + 1):
        first, last = max(0, -shift), min(len(seen), len(heard) - shift)
        cosines.append((seen[first:last] * heard[first + shift : last + shift]).sum(-1).mean())
    values = torch.stack(cosines).double()
    best = int(values.argmax())
    return SyncReading(max_shift - best, float(values[best] - values.median()), tuple(values.tolist()))


def pair_accuracy(seen: Tensor, heard: Tensor, num_frames: int, pairs: int, rng: np.random.Generator) -> PairTally:
    """Pairs drawn as in training from the windows of one clip, n d and m d: pictures beside the sound of the same or of another moment.

    Raises InputError where the clip is shorter than training takes.
    """
    frames = min(len(seen), len(heard)) + num_frames - 1
    if frames < SYNCNET_LENGTHS * num_frames:
        raise InputError(f"A clip of {frames} frames is shorter than {SYNCNET_LENGTHS} windows of {num_frames}: measure longer clips")
    choices = [choose_syncnet(rng, frames, num_frames) for _ in range(pairs)]
    cosines = torch.stack([seen[choice.pictures] @ heard[choice.sound] for choice in choices])
    told, labels = (cosines > IN_SYNC).numpy(), np.array([choice.label for choice in choices], dtype=bool)
    return PairTally(pairs, int((told == labels).sum()), int((told == rng.permutation(labels)).sum()))


class SyncMeter:
    """A trained SyncNet of pixels that looks at whole clips, window by window.

    Args:
        network: the network, already where it is to compute.
        resolution, num_frames, lower_half: what it was trained on.
    """

    def __init__(self, network: SyncNet, *, resolution: int, num_frames: int, lower_half: bool) -> None:
        self.network = network.eval().requires_grad_(False)
        self.resolution, self.num_frames, self.lower_half = resolution, num_frames, lower_half

    @torch.no_grad()
    def see(self, faces: Tensor) -> Tensor:
        """Aligned faces uint8 f h w 3 -> unit vectors float32 n d of all windows, on the CPU. Raises InputError: not one window."""
        starts = self._starts(len(faces), "pictures")
        pixels = to_pixels(resize_faces(faces, self.resolution))  # f c h w
        device, found = next(self.network.parameters()).device, []
        for part in starts.split(WINDOWS_AT_ONCE):
            windows = torch.stack([pixels[start : start + self.num_frames] for start in part.tolist()])  # b f c h w
            found.append(self.network.embed_frames(syncnet_frames(windows.to(device), self.lower_half)).float().cpu())
        return torch.cat(found)

    @torch.no_grad()
    def hear(self, mel: Tensor) -> Tensor:
        """A clip's mel 80 t -> unit vectors float32 m d of all windows, on the CPU. Raises InputError: not one window."""
        starts = self._starts(audio_frames(mel), "sound")
        device, found = next(self.network.parameters()).device, []
        for part in starts.split(WINDOWS_AT_ONCE):
            windows = torch.stack([mel_window(mel, start, self.num_frames) for start in part.tolist()])  # b 1 80 t
            found.append(self.network.embed_audio(windows.float().to(device)).float().cpu())
        return torch.cat(found)

    def _starts(self, frames: int, what: str) -> Tensor:
        if frames < self.num_frames:
            raise InputError(f"A clip has {what} for {frames} frames and SyncNet looks at {self.num_frames}: measure longer clips")
        return torch.arange(frames - self.num_frames + 1)


def load_sync_meter(config_path: Path, weights: Path, device: torch.device | str = "cpu") -> SyncMeter:
    """A trained SyncNet for measuring.

    Raises:
        ConfigError, WeightsError: configuration and weights do not belong together or cannot be read.
        InputError: it looks at latents, which a finished video has none of.
    """
    if load_syncnet_config(config_path).data.latent_space:
        raise InputError(f"{config_path} is a SyncNet of latents, and videos are measured by one of pixels: name another configuration")
    config, network = load_syncnet(config_path, weights)
    data = config.data
    return SyncMeter(network.to(device), resolution=data.resolution, num_frames=data.num_frames, lower_half=data.lower_half)


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
        source = VideoReader(video)
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

    def _compare(self, source: VideoReader, tracks: list[FaceTrack], samples: MfccSamples) -> dict[int, Offset]:
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

    def __init__(self, samples: MfccSamples, start: int, stop: int) -> None:
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
def open_sound(video: Path, sound: Path | None = None) -> Iterator[MfccSamples]:
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

    def __init__(self, track: FaceTrack, samples: MfccSamples, network: Embeds, published: bool) -> None:
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


_PIECE = 256  # faces that are held at once


class SpanReader:
    """Offset, confidence and cosine of video files, one result for each span of frames that inference would paint.

    Args:
        meter: a trained SyncNet of pixels.
        detector: that of inference.
    """

    def __init__(self, meter: SyncMeter, detector: FaceDetector) -> None:
        self.meter, self.detector = meter, detector

    def read(self, video: Path, sound: Path | None = None) -> SyncResult:
        """Measure a video with its own sound, or with that of another file; embeddings are held, pictures are not.

        Raises InputError where that cannot be done.
        """
        source = VideoReader(video)
        with open_sound(video, sound) as samples:
            mel = log_mel(samples[:]).float()  # 80 t
        plan = plan_spans(source.frames(), self.detector, TEMPLATE_RESOLUTION, float(source.fps))
        shortest = self.meter.num_frames + MAX_OFFSET
        spans = [span for span in plan.spans if span.stop - span.start >= shortest]
        if not spans:
            raise InputError(f"{video} shows no face for {shortest} successive frames: use a longer one")
        heard, readings, used = self.meter.hear(mel), [], 0
        frames = source.frames(spans[0].start, spans[-1].stop)
        for span, faces in self._faces(frames, spans):
            reading = self._compare(span, faces, heard)
            if reading is not None:
                readings.append(reading)
                used += span.stop - span.start
        if not readings:
            raise InputError(f"{video} has too little sound beside its faces: use a file whose sound is as long as its picture")
        offset, confidence = (np.mean([getattr(reading, name) for reading in readings]) for name in ("offset", "confidence"))
        best = float(np.mean([max(reading.cosines) for reading in readings]))
        return SyncResult(int(offset), float(confidence), best, len(readings), used)

    def _faces(self, frames: Iterator[np.ndarray], spans: list[Span]) -> Iterator[tuple[Span, Iterator[Tensor]]]:
        """Each span with its aligned faces in pieces, uint8 f h w 3; `frames` begin with the first span. To be read in order."""
        place = spans[0].start
        for span in spans:
            for _ in islice(frames, span.start - place):
                pass
            place = span.stop
            yield span, self._warp(islice(frames, span.stop - span.start), span)

    def _warp(self, frames: Iterator[np.ndarray], span: Span) -> Iterator[Tensor]:
        """A span's faces in pieces, each begun by the last faces of the one before, so that every window lies in one of them."""
        matrices, faces = torch.from_numpy(span.matrices), []
        for number, frame in enumerate(frames):
            faces.append(warp_faces([frame], matrices[number : number + 1], TEMPLATE_RESOLUTION)[0])
            if len(faces) == _PIECE:
                yield torch.stack(faces)
                faces = faces[_PIECE - self.meter.num_frames + 1 :]
        if len(faces) >= self.meter.num_frames:
            yield torch.stack(faces)

    def _compare(self, span: Span, faces: Iterator[Tensor], heard: Tensor) -> SyncReading | None:
        """The reading of one span beside the sound of the same frames; None where that is too short."""
        seen = [self.meter.see(piece) for piece in faces]
        beside = heard[span.start : span.stop - self.meter.num_frames + 1]
        if not seen or min(sum(map(len, seen)), len(beside)) <= MAX_OFFSET:
            return None
        return compare(torch.cat(seen), beside)


NEEDED = ("sfd_face", "syncnet_v2")  # in the table of weights
NO_SYNC_C = (
    "NOT Sync-C: measured with a SyncNet of this project, not with SyncNet v2. These confidences are differences of cosines between "
    "0 and 1; they cannot be compared with published figures."
)
Device = torch.device | str


class Reads(Protocol):
    """What measures one file."""

    def read(self, video: Path, sound: Path | None = None) -> SyncResult:
        """Measure a video with its own sound, or with that of another file. Raises InputError."""


@dataclass(frozen=True)
class SyncMeasure:
    """What both measures are, each a `Measure`: confidence, offset, and how well both fit at the offset.

    Attributes:
        reader: what measures a file.
        settings: what decides the numbers beside the file: checksums of weights, ways of counting.
        warning: what a reader of the numbers must not miss; None where they are what their name says.
    """

    name: str
    protocol: str
    columns: Sequence[Column]
    reader: Reads
    settings: Mapping[str, Any]
    warning: str | None = None

    def open(self, case: Case) -> "_FileTally":
        """Begin with a video. The file itself is read, with its own sound; where it has none, with what it was made to say."""
        return _FileTally(self, case)

    def numbers(self, result: SyncResult) -> dict[str, float]:
        """A result by column."""
        values = (result.confidence, result.offset, result.best)
        return {column.name: float(value) for column, value in zip(self.columns, values, strict=True)}


class SyncConfidence(SyncMeasure):
    """The measure "sync"."""

    def __init__(self, reader: Reads, settings: Mapping[str, Any] | None = None, published: bool = False) -> None:
        counting = "windows are counted as the published program counts them, one fewer than fit" if published else "every window counts"
        super().__init__(
            "sync",
            "SyncNet v2 (syncnet_v2.model) on the faces that S3FD (sfd_face.pth) follows within each shot of the video at 25 frames a "
            "second, with the video's own sound: the least mean distance of embeddings over 31 shifts is Sync-D, the median less it the "
            f"confidence (Sync-C); means over faces; {counting}.",
            (
                Column("sync_conf", "", "high", 2),
                Column("sync_offset", "frames", "zero", 1),
                Column("sync_d", "", "low", 2),
            ),
            reader,
            {"published": published, **(settings or {})},
        )


class OwnSync(SyncMeasure):
    """The measure "own_sync"."""

    def __init__(self, reader: Reads, settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(
            "own_sync",
            f"{NO_SYNC_C} Faces are aligned as inference aligns them; the cosine of embeddings is averaged at each of 31 shifts, the "
            "largest is at the offset, and what it has beyond the median is the confidence; means over spans.",
            (
                Column("own_sync_conf", "cosine", "high", 3),
                Column("own_sync_offset", "frames", "zero", 1),
                Column("own_sync_cosine", "", "high", 3),
            ),
            reader,
            settings or {},
            NO_SYNC_C,
        )


class _FileTally:
    """Waits for the end of the video, then reads its file."""

    def __init__(self, measure: SyncMeasure, case: Case) -> None:
        self._measure, self._case = measure, case

    def add(self, chunk: Chunk) -> None:
        """Chunks are not looked at: SyncNet has its own way of finding and cutting faces."""

    def finish(self) -> Numbers:
        """Raises InputError where no face can be followed, or nothing is heard."""
        video = self._case.video
        sound = None if probe(video).has_audio else self._case.audio
        return self._measure.numbers(self._measure.reader.read(video, sound))


def missing_weights(checkpoints: Path = CHECKPOINTS) -> dict[str, str]:
    """Name -> place and source of each file that "sync" needs and that is not there."""
    places = {name: weights_path(name, checkpoints) for name in NEEDED}
    return {name: f"{place} ({WEIGHTS[name].origin})" for name, place in places.items() if not place.is_file()}


def load_sync_confidence(checkpoints: Path = CHECKPOINTS, device: Device = "cpu", published: bool = False) -> SyncConfidence:
    """The measure "sync". Raises WeightsError where its files are missing (all are named) or hold other networks."""
    if missing := missing_weights(checkpoints):
        raise WeightsError(
            f"SyncNet v2 cannot measure without {' and '.join(missing.values())}: run `python -m scripts.download_weights --training`, put "
            "the files there by hand, or measure with a SyncNet of this project (--syncnet_config and --syncnet)."
        )
    s3fd, syncnet = (weights_path(name, checkpoints) for name in NEEDED)
    settings = {name: file_sha256(path) for name, path in zip(NEEDED, (s3fd, syncnet), strict=True)}
    reader = TrackReader(SyncNetDetector(load_s3fd(s3fd).to(device)), SyncNetEval(load_syncnet_v2(syncnet).to(device)), published)
    return SyncConfidence(reader, settings, published)


def load_own_sync(config: Path, weights: Path, checkpoints: Path = CHECKPOINTS, device: Device = "cpu", detector: str = "auto") -> OwnSync:
    """The measure "own_sync" by a SyncNet of pixels and the face detector of inference.

    Raises ConfigError, WeightsError or InputError where they cannot be used.
    """
    meter = load_sync_meter(config, weights, device)
    faces = build_detector(detector, *(weights_path(name, checkpoints) for name in ("s3fd", "2dfan4")), device)
    sizes = {"resolution": meter.resolution, "num_frames": meter.num_frames, "lower_half": meter.lower_half}
    settings = {"syncnet": file_sha256(weights), **sizes, "detector": faces.name}
    return OwnSync(SpanReader(meter, faces), settings)
