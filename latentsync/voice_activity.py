"""In which frames of a recording somebody speaks: by Silero VAD where it is installed, else by loudness."""

import logging
import warnings
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import torch
from scipy.ndimage import binary_opening, distance_transform_edt, percentile_filter
from skimage.filters import apply_hysteresis_threshold

from latentsync.constants import AUDIO_SAMPLE_RATE
from latentsync.media.audio import FULL_SCALE, SILENCE, Samples

logger = logging.getLogger(__name__)

FADE = 2  # frames between speech and a pause
PAD = 0.1  # seconds before and after what is heard that count as speech: lips move earlier, and rest later
SHORTEST_PAUSE = 0.1  # seconds of silence, for Silero VAD
CHUNK = 512  # samples that Silero VAD takes at once
BLOCK = 320  # samples whose loudness is one number: 20 ms
BLOCKS_AT_ONCE = 1 << 15
FLOOR_BLOCKS, FLOOR_PERCENTILE = 500, 10  # blocks around each one, and which of them is as loud as the room
LOUD_PERCENTILE = 95  # of all blocks: as loud as the voice
LOWEST = 50.0  # dB under the voice: a room is not taken for more silent than that
LEAST_ABOVE, LEAST_BELOW = 4.0, 15.0  # dB: speech is louder than the room by as much, and not softer than the voice by less
HOLD = 5.0  # dB by which a voice that has begun may become softer
SHORTEST_SOUND = 3  # blocks: what is louder for less is a click


def speech_shares(samples: Samples, fps: Fraction, frames: int) -> np.ndarray:
    """1 in frames in which somebody speaks in mono samples of 16 kHz, 0 in pauses, passing over in `FADE` frames; float32 [frames]."""
    spoken, name, found = np.zeros(frames, bool), "Silero VAD", silero_runs(samples)
    if found is None:
        name, found = "loudness (requirements-voice.txt installs Silero VAD, which tells noise from speech)", loud_runs(samples)
    for start, stop in found:
        first, last = (max(place / AUDIO_SAMPLE_RATE + pad, 0) for place, pad in ((start, -PAD), (stop, PAD)))
        spoken[int(first * fps) : -int(-last * fps // 1)] = True
    logger.info("Nobody speaks in %d of %d frames, by %s: the mouth is closed there.", frames - spoken.sum(), frames, name)
    if not spoken.any():
        return np.zeros(frames, np.float32)
    return np.clip(1 - distance_transform_edt(~spoken) / (FADE + 1), 0, 1).astype(np.float32)


class SpeechOnly:
    """Mono samples of 16 kHz whose pauses, as `speech_shares` finds them, are silent: lips that follow them rest there."""

    def __init__(self, samples: Samples, fps: Fraction, frames: int) -> None:
        self._samples, self._shares = samples, speech_shares(samples, fps, frames)
        self._middles = (np.arange(frames) + 0.5) * float(AUDIO_SAMPLE_RATE / fps)  # of frames, in samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, part: slice) -> np.ndarray:
        """The samples of a slice, float32."""
        start, stop, _ = part.indices(len(self))
        gains = np.interp(np.arange(start, max(start, stop)), self._middles, self._shares)
        return (self._samples[start : max(start, stop)] * gains).astype(np.float32)


def silero_runs(samples: Samples) -> Iterator[tuple[int, int]] | None:
    """Runs of samples (half open) with speech, by Silero VAD; None where it is not installed."""
    threads = torch.get_num_threads()
    try:
        from silero_vad import VADIterator, load_silero_vad
    except ImportError:
        return None
    finally:
        torch.set_num_threads(threads)  # importing it sets them to one
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch advises against the format of its weights
        network = load_silero_vad()
    pause = round(1000 * SHORTEST_PAUSE)
    detector = VADIterator(network, sampling_rate=AUDIO_SAMPLE_RATE, min_silence_duration_ms=pause, speech_pad_ms=0)

    def runs() -> Iterator[tuple[int, int]]:
        begin = None
        for start in range(0, len(samples), CHUNK):
            chunk = np.asarray(samples[start : start + CHUNK], np.float32)
            event = detector(torch.from_numpy(np.pad(chunk, (0, CHUNK - len(chunk))))) or {}
            begin = event.get("start", begin)
            if "end" in event:
                yield begin, event["end"]
                begin = None
        if begin is not None:
            yield begin, len(samples)

    return runs()


def loud_runs(samples: Samples) -> Iterator[tuple[int, int]]:
    """Runs of samples (half open) louder than what is between room and voice; all, where the two are hardly apart."""
    levels = block_levels(samples)
    voice = np.percentile(levels, LOUD_PERCENTILE)
    if voice <= 20 * np.log10(SILENCE / FULL_SCALE):
        return
    room = np.maximum(percentile_filter(levels, FLOOR_PERCENTILE, FLOOR_BLOCKS), voice - LOWEST)
    begins = np.minimum((room + voice) / 2, voice - LEAST_BELOW)
    begins = np.where(begins < room + LEAST_ABOVE, -np.inf, begins)
    loud = apply_hysteresis_threshold(np.maximum(levels - begins, -2 * HOLD), -HOLD, 0)
    loud = binary_opening(np.pad(loud, SHORTEST_SOUND, mode="edge"), np.ones(SHORTEST_SOUND))[SHORTEST_SOUND:-SHORTEST_SOUND]
    edges = np.flatnonzero(np.diff(np.pad(loud.astype(np.int8), 1)))
    yield from ((int(start) * BLOCK, min(int(stop) * BLOCK, len(samples))) for start, stop in zip(edges[::2], edges[1::2], strict=True))


def block_levels(samples: Samples) -> np.ndarray:
    """Loudness of each block, without a constant offset, in dB of full scale; float64 [blocks], the last block filled with silence."""
    levels = []
    for start in range(0, len(samples), BLOCK * BLOCKS_AT_ONCE):
        part = np.asarray(samples[start : start + BLOCK * BLOCKS_AT_ONCE], np.float64)
        levels.append(np.pad(part, (0, -len(part) % BLOCK)).reshape(-1, BLOCK).std(axis=1))
    return 20 * np.log10(np.maximum(np.concatenate(levels), 1e-5))
