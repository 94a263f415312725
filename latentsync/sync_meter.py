"""Offset and confidence of mouth and sound by a trained SyncNet: of whole clips, and of lines whose frames come piece by piece."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from latentsync.constants import LATENT_CHANNELS, VAE_FACTOR, VIDEO_FPS
from latentsync.errors import InputError
from latentsync.faces.alignment import resize_faces
from latentsync.faces.mask import to_pixels
from latentsync.media.audio import Samples
from latentsync.mel import COLUMNS_PER_SECOND, HOP, N_FFT, audio_frames, log_mel, mel_window, window_length, window_start
from latentsync.models.syncnet import SyncNet, load_syncnet, syncnet_frames
from latentsync.models.vae import LatentCodec
from latentsync.third_party.sync_search import MAX_SHIFT

WINDOWS_AT_ONCE = 16  # windows that go through a network together
LATENT_SEED = 0  # of the noise of latents
SUMS_SHAPE = (2 * MAX_SHIFT + 1, 2)  # of cosines, and of windows, at each shift
MARGIN = N_FFT // 2 // HOP + 1  # columns beside a piece of sound on which its mel depends


class SyncReading(NamedTuple):
    """Offset and confidence of a clip."""

    offset: int  # frames by which the sound comes too early; 0 where both fit
    confidence: float  # cosine at the offset less the median over all shifts
    cosines: tuple[float, ...]  # mean cosine where the sound is moved by -MAX_SHIFT .. MAX_SHIFT frames


def compare(pictures: Tensor, audio: Tensor) -> SyncReading:
    """Compare unit vectors of all windows, n d and m d; offset 3: the sound of frame i fits picture i + 3. Raises InputError: too short."""
    if min(len(pictures), len(audio)) <= MAX_SHIFT:
        raise InputError(
            f"A clip of {len(pictures)} windows of pictures and {len(audio)} of sound is too short to move its sound by {MAX_SHIFT} "
            "frames: measure longer clips"
        )
    cosines = []
    for shift in range(-MAX_SHIFT, MAX_SHIFT + 1):
        first, last = max(0, -shift), min(len(pictures), len(audio) - shift)
        cosines.append((pictures[first:last] * audio[first + shift : last + shift]).sum(-1).mean())
    return read_cosines(torch.stack(cosines).double())


def read_cosines(values: Tensor) -> SyncReading:
    """The reading of mean cosines, float64, of sound that is moved by -MAX_SHIFT .. MAX_SHIFT frames."""
    best = int(values.argmax())
    return SyncReading(MAX_SHIFT - best, float(values[best] - values.median()), tuple(values.tolist()))


class SyncMeter:
    """Embeddings of whole clips, window by window, by a trained SyncNet; one of latents comes with the autoencoder `codec`."""

    def __init__(self, network: SyncNet, *, resolution: int, num_frames: int, lower_half: bool, codec: LatentCodec | None = None) -> None:
        self.network = network.eval().requires_grad_(False)
        self.resolution, self.num_frames, self.lower_half, self.codec = resolution, num_frames, lower_half, codec
        self.device = next(network.parameters()).device

    @torch.no_grad()
    def embed_faces(self, faces: Tensor) -> Tensor:
        """Aligned faces uint8 f h w 3 -> unit vectors float32 n d of all windows, on the CPU. Raises InputError: not one window."""
        starts = self._starts(len(faces), "pictures")
        frames = to_pixels(resize_faces(faces, self.resolution))  # f c h w
        frames = frames if self.codec is None else self._encode(frames, self.codec)
        windows = [frames[start : start + self.num_frames] for start in starts]
        return _in_batches(windows, lambda part: self.network.embed_frames(syncnet_frames(part.to(self.device), self.lower_half)))

    def _encode(self, pixels: Tensor, codec: LatentCodec) -> Tensor:
        """Pixels f 3 h w -> latents f 4 h w."""
        cells = (len(pixels), LATENT_CHANNELS, *(side // VAE_FACTOR for side in pixels.shape[-2:]))
        noise = torch.randn(cells, generator=torch.Generator().manual_seed(LATENT_SEED))
        with torch.autocast(self.device.type, enabled=False):
            return codec.encode(pixels.to(self.device, codec.dtype), noise.to(self.device, codec.dtype)).float()

    @torch.no_grad()
    def embed_audio(self, mel: Tensor) -> Tensor:
        """A clip's mel 80 t -> unit vectors float32 m d of all windows, on the CPU. Raises InputError: not one window."""
        return self.embed_sounds([mel_window(mel, start, self.num_frames) for start in self._starts(audio_frames(mel), "sound")])

    @torch.no_grad()
    def embed_sounds(self, windows: Sequence[Tensor]) -> Tensor:
        """Mel windows, 1 80 t each -> unit vectors float32 m d, on the CPU."""
        return _in_batches(windows, lambda part: self.network.embed_audio(part.float().to(self.device)))

    def _starts(self, frames: int, what: str) -> range:
        if frames < self.num_frames:
            raise InputError(f"A clip has {what} for {frames} frames and SyncNet takes {self.num_frames}: measure longer clips")
        return range(frames - self.num_frames + 1)


def _in_batches(windows: Sequence[Tensor], embed: Callable[[Tensor], Tensor]) -> Tensor:
    parts = (torch.stack(windows[start : start + WINDOWS_AT_ONCE]) for start in range(0, len(windows), WINDOWS_AT_ONCE))
    return torch.cat([embed(part).float().cpu() for part in parts])


def load_sync_meter(config_path: Path, weights: Path, device: torch.device | str = "cpu") -> SyncMeter:
    """A trained SyncNet for measuring. Raises ConfigError, WeightsError; InputError where it takes latents, which a video has none of."""
    config, network = load_syncnet(config_path, weights)
    if (data := config.data).latent_space:
        raise InputError(f"{config_path} is a SyncNet of latents, and videos are measured by one of pixels: name another configuration")
    return SyncMeter(network.to(device), resolution=data.resolution, num_frames=data.num_frames, lower_half=data.lower_half)


class LineSync:
    """Offset and confidence of a line, whose frames with a face come in order, piece by piece: what `compare` says of all of them.

    Holds a window of faces and the embeddings of the sound around it. `sums`, float64 of `SUMS_SHAPE`, is added to in place.
    """

    def __init__(self, meter: SyncMeter, samples: Samples, sums: Tensor, fps: Fraction) -> None:
        """`samples`: the line's sound at AUDIO_SAMPLE_RATE, from its first frame on; `fps`: of its frames."""
        self.meter, self.fps, self.sums = meter, fps, sums
        self._samples, columns = samples, 1 + len(samples) // HOP
        self._windows = columns * VIDEO_FPS // COLUMNS_PER_SECOND - meter.num_frames + 1  # of the sound
        self._sounds: dict[int, Tensor] = {}  # window -> embedding
        self.held, self.next = torch.empty(0, dtype=torch.uint8), -1  # faces f R R 3 at VIDEO_FPS; the frame after them

    def add(self, faces: Tensor, first: int) -> None:
        """Take aligned faces uint8 f h w 3, of frames of the line from `first` on; those of each moment at VIDEO_FPS are the nearest."""
        step, half = VIDEO_FPS / self.fps, Fraction(1, 2)
        moments = range(max(0, ceil((first - half) * step)), ceil((first + len(faces) - half) * step))
        if not moments:
            return
        places = [int(moment / step + half) - first for moment in moments]
        small = resize_faces(faces[places], self.meter.resolution).cpu()
        self.held = torch.cat([self.held, small]) if moments.start == self.next and len(self.held) else small
        self.next = moments.stop
        count = len(self.held) - self.meter.num_frames + 1
        if count > 0:
            start = self.next - len(self.held)
            pictures, self.held = self.meter.embed_faces(self.held), self.held[count:]
            self._compare(pictures, start)

    def _compare(self, pictures: Tensor, start: int) -> None:
        """Add up the cosines of windows from `start` on, n d, with the sound beside them."""
        around = range(max(0, start - MAX_SHIFT), min(self._windows, start + len(pictures) + MAX_SHIFT))
        if not around:
            return
        self._sounds = {window: self._sounds.get(window) for window in around}
        missing = [window for window, vector in self._sounds.items() if vector is None]
        if missing:
            self._sounds.update(zip(missing, self.meter.embed_sounds(self._mel_windows(missing)), strict=True))
        sounds = torch.stack(list(self._sounds.values()))
        for row, shift in enumerate(range(-MAX_SHIFT, MAX_SHIFT + 1)):
            first, last = max(start + shift, around.start), min(start + len(pictures) + shift, around.stop)
            if first < last:
                moved, beside = pictures[first - shift - start : last - shift - start], sounds[first - around.start : last - around.start]
                self.sums[row] += torch.tensor([(moved * beside).sum(dtype=torch.float64), last - first], dtype=torch.float64)

    def _mel_windows(self, windows: Sequence[int]) -> list[Tensor]:
        """Those of successive frames, 1 80 t each, from a piece of the sound."""
        length = window_length(self.meter.num_frames)
        first = max(0, window_start(windows[0]) - MARGIN)
        mel = log_mel(self._samples[first * HOP : (window_start(windows[-1]) + length + MARGIN) * HOP])
        starts = [window_start(window) - first for window in windows]
        return [mel[None, :, start : start + length] for start in starts]


def line_reading(sums: Tensor) -> SyncReading | None:
    """The reading of the sums of a `LineSync`; None where a shift has too few windows: chance would decide."""
    cosines, windows = sums.unbind(1)
    return read_cosines(cosines / windows) if windows.min() > MAX_SHIFT else None
