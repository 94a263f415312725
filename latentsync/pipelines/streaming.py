"""Live use: frames that arrive one by one as clips with a face, sound that arrives in pieces as audio windows; bounded memory."""

import copy
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np
import torch
from whisper.audio import N_FFT

from latentsync.constants import AUDIO_SAMPLE_RATE, VAE_FACTOR, WHISPER_HOP_LENGTH, WHISPER_MEL_PER_STEP
from latentsync.errors import InputError
from latentsync.faces.detector import Face, FaceDetector, FaceFollower
from latentsync.faces.plan import FacePlan, FaceRequest, Span, find_faces, plan_sightings
from latentsync.faces.selection import FaceChoice, FacePoint
from latentsync.faces.tracking import FLASH, LOOKAHEAD
from latentsync.pipelines.timeline import Clip, clip_noise
from latentsync.whisper.audio2feature import OVERLAP_SHARE, Audio2Feature, AudioWindows, LogMel

STRIDE = 8  # frames from one full detection to the next, for which sightings wait
AHEAD = 2  # frames after a clip that smoothing along time sees, and after which a face has been seen for long enough
CONTEXT = 25  # frames before a clip from which its face is followed
SOUND_AHEAD = Fraction(1, 2)  # seconds after a clip of which its audio features know
USUAL_PEAK = 1.5  # log10 of the power at the loudest moment that is expected of a recording, until a louder one comes
STEP = WHISPER_HOP_LENGTH * WHISPER_MEL_PER_STEP  # samples of one encoder step


def live_delay(num_frames: int, detector: FaceDetector) -> int:
    """Frames that must have come in after a frame, at most, before it comes out: 31 with clips of 16 and MTCNN."""
    stride = min(detector.stride, STRIDE) if isinstance(detector, FaceFollower) else 0
    return num_frames - 1 + AHEAD + stride + LOOKAHEAD + FLASH


class LiveSamples:
    """Sound that arrives in pieces, up to a moment, as `Samples`; what lies far back is forgotten."""

    def __init__(self, pieces: Iterable[np.ndarray]) -> None:
        self._pieces, self._held, self._first, self._length = iter(pieces), np.zeros(0, np.float32), 0, 0

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, part: slice) -> np.ndarray:
        start, stop, _ = part.indices(self._length)
        assert start >= self._first, "sound that was forgotten is asked for"
        return self._held[start - self._first : stop - self._first]

    def extend(self, length: int) -> None:
        """Take pieces until there are `length` samples, followed by silence where they end. Raises InputError."""
        pieces, missing = [self._held], length - self._first - len(self._held)
        while missing > 0:
            piece = next(self._pieces, None)
            piece = np.zeros(missing, np.float32) if piece is None else np.asarray(piece)
            if piece.ndim != 1 or piece.dtype != np.float32 or not np.isfinite(piece).all():
                raise InputError(f"A piece of sound is {piece.dtype} {piece.shape}: give finite mono samples float32 (n,) at 16 kHz.")
            pieces.append(piece)
            missing -= len(piece)
        self._held, self._length = np.concatenate(pieces), max(length, self._length)

    def forget(self, start: int) -> None:
        """Drop the samples before `start`."""
        self._held, self._first = self._held[max(0, start - self._first) :], max(start, self._first)


class LiveWindows:
    """The windows of `AudioWindows` of sound that arrives in pieces, in order.

    They differ by what features of a whole recording know: the sound more than `SOUND_AHEAD` after a clip, and a louder moment to come.
    """

    def __init__(
        self, extractor: Audio2Feature, pieces: Iterable[np.ndarray], fps: Fraction, ahead: Fraction = SOUND_AHEAD, strength: float = 1.0
    ) -> None:
        self.extractor, self.fps, self.ahead, self.strength = extractor, fps, ahead, strength
        self._samples, self._peak = LiveSamples(pieces), USUAL_PEAK
        self._stop, self._seen = 0, 0  # samples up to the last frame; columns of which the loudest moment is known

    def frames(self, start: int, stop: int) -> torch.Tensor:
        """Windows of video frames `start` to `stop`: float32 (f, n, d) on the encoder's device. Raises InputError."""
        windows = AudioWindows(self.extractor, self.advance(stop), self.fps, self.strength)
        windows.num_pieces = 1 + windows.num_steps // windows.stride  # the recording goes on: its last piece gives way to a next one
        return windows.frames(start, stop)

    def advance(self, stop: int) -> LogMel:
        """Take the sound that belongs to frames before `stop`, forget what they do not need: its spectrogram. Raises InputError."""
        piece = (self.extractor.context - self.extractor.context // OVERLAP_SHARE) * STEP  # samples from one piece to the next
        self._samples.forget(max(0, (self._stop // piece - 1) * piece - N_FFT))
        self._stop = int(stop / self.fps * AUDIO_SAMPLE_RATE)
        self._samples.extend(self._stop + int(self.ahead * AUDIO_SAMPLE_RATE))
        mel = LogMel(self._samples, self.extractor.encoder.conv1.in_channels, self._peak)
        sure = mel.num_columns - N_FFT // WHISPER_HOP_LENGTH  # columns whose sound is all there
        if sure > self._seen:
            self._peak = mel.loudest = max(self._peak, mel.peak(self._seen, sure))
            self._seen = sure
        return mel


class LiveFaces:
    """Cuts frames that arrive one by one into the clips of `timeline.clips`, each planned from the frames around it.

    A person is chosen where a shot begins, or the last one is gone, among those of the frames so far. Dissolves are not looked for, and a
    face that is missed for some frames at the end of a clip is not bridged.
    """

    def __init__(
        self, detector: FaceDetector, choice: FaceChoice, fps: Fraction, resolution: int, num_frames: int, generator: torch.Generator
    ) -> None:
        self._detector, self._choice, self._fps, self._resolution = detector, choice, float(fps), resolution
        self._num_frames, self._generator = num_frames, generator
        self._frames: deque[np.ndarray] = deque()  # that are in no clip yet
        self._faces: deque[list[Face]] = deque()  # of frames from `_first` on, all of one shot
        self._first, self._done = 0, 0  # `_done`: the frame with which the next clip begins
        self._last: tuple[int, float, float] | None = None  # a frame of this shot, and the middle of the face that was chosen in it
        self._span = 0

    def clips(self, frames: Iterable[np.ndarray]) -> Iterator[Clip]:
        """The clips of frames uint8 (h, w, 3), in order. Raises InputError for frames of another kind."""
        detector = self._detector
        if isinstance(detector, FaceFollower) and detector.stride > STRIDE:
            detector = copy.copy(detector)  # which shares its networks
            detector.stride = STRIDE
        for faces, is_cut in find_faces(self._kept(frames), detector, self._choice.reference is not None, dissolves=False):
            if is_cut and self._faces:
                yield from self._rest()
                self._first, self._last = self._done, None
                self._faces.clear()
            self._faces.append(faces)
            while self._first + len(self._faces) >= self._done + self._num_frames + AHEAD:
                yield self._next_clip()
        yield from self._rest()

    def _kept(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        shape = None
        for number, frame in enumerate(frames):
            shape = shape or frame.shape
            if frame.dtype != np.uint8 or frame.shape != shape or frame.ndim != 3 or frame.shape[2] != 3:
                raise InputError(f"Frame {number} is {frame.dtype} {frame.shape}: give uint8 pictures (h, w, 3), all of one size.")
            self._frames.append(frame)
            yield frame

    def _rest(self) -> Iterator[Clip]:
        """The clips that are left of a shot that has ended."""
        while self._done < self._first + len(self._faces):
            yield self._next_clip()

    def _next_clip(self) -> Clip:
        """The next clip: as many frames, up to `num_frames`, as have one face, or none."""
        start, known = self._done, self._first + len(self._faces)
        stop = min(start + self._num_frames, known)
        spans = [(span, span.start + self._first, span.stop + self._first) for span in self._plan().spans]
        span, begin, end = next(((span, begin, end) for span, begin, end in spans if end > start and begin < stop), (None, stop, stop))
        stop = min(stop, end if begin <= start else begin)
        clip = Clip(start, [self._frames.popleft() for _ in range(start, stop)])
        if span is not None and begin <= start:
            self._fill(clip, span, begin)
        self._done = stop
        while self._first < stop - CONTEXT:
            self._faces.popleft()
            self._first += 1
        return clip

    def _fill(self, clip: Clip, span: Span, begin: int) -> None:
        """Give a clip its face: that of a span that begins with the frame `begin`."""
        if self._last is None or self._last[0] != clip.start - 1:
            self._span += 1  # another face, or one that comes back
        part = slice(clip.start - begin, clip.stop - begin)
        clip.span, clip.sources = self._span, range(clip.start, clip.stop)
        clip.matrices, clip.shares = span.matrices[part], span.shares[part]
        clip.noise = clip_noise(len(clip.frames), self._resolution // VAE_FACTOR, self._generator)
        x0, y0, x1, y1 = span.boxes[part][-1].tolist()
        self._last = (clip.stop - 1, (x0 + x1) / 2, (y0 + y1) / 2)

    def _plan(self) -> FacePlan:
        """Where the chosen face lies in the frames that are known, numbered from `_first`."""
        if self._last is not None and self._last[0] >= self._first:
            try:
                return self._plan_for(FaceChoice(points=(self._shifted(FacePoint(*self._last[1:], self._last[0] / self._fps)),)))
            except InputError:  # that face is no longer followed
                self._last = None
        if not self._choice.points:
            return self._plan_for(self._choice)
        known = range(self._first, self._first + len(self._faces))
        points = tuple(self._shifted(point) for point in self._choice.points if point.frame(self._fps) in known)
        return self._plan_for(FaceChoice(points=points)) if points else FacePlan(len(known), 1, 0, (), ())

    def _plan_for(self, choice: FaceChoice) -> FacePlan:
        sightings = ((faces, False) for faces in self._faces)
        return plan_sightings(sightings, self._detector.smoothing, self._resolution, self._fps, [[FaceRequest(choice)]])[0]

    def _shifted(self, point: FacePoint) -> FacePoint:
        """A point on the time line that begins with the frame `_first`."""
        return replace(point, seconds=(point.frame(self._fps) - self._first) / self._fps)
