"""Audio features: Whisper's log-mel, its encoder's hidden states, and the window of each video frame."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn
from whisper.audio import N_FFT, mel_filters
from whisper.model import AudioEncoder, ModelDimensions, Whisper

from latentsync.constants import VIDEO_FPS, WHISPER_HOP_LENGTH, WHISPER_MEL_PER_STEP, WHISPER_STEPS_PER_SECOND
from latentsync.errors import WeightsError
from latentsync.media.audio import Excerpt, Samples
from latentsync.weights import file_sha256, load_strict, read_checkpoint

COLUMNS_PER_PASS = 6000  # one minute of sound at a time while the loudest moment is sought
SMALLEST_POWER = 1e-10
DYNAMIC_RANGE = 8.0  # log10 units below the loudest moment at which the spectrogram is cut off
PIECES_KEPT = 2  # a window may straddle two pieces
OVERLAP_SHARE = 3  # neighbouring pieces share a third of the encoder's context
BLEND_SHARE = 15  # ... and pass over into each other during a fifteenth of it, in the middle of what they share
CONFIG = "config.json"  # of a folder in the layout of Hugging Face
_NAMES = {  # of an encoder in transformers -> in openai-whisper, replaced in this order
    "embed_positions.weight": "positional_embedding",
    ".self_attn_layer_norm.": ".attn_ln.",
    ".self_attn.q_proj.": ".attn.query.",
    ".self_attn.k_proj.": ".attn.key.",
    ".self_attn.v_proj.": ".attn.value.",
    ".self_attn.out_proj.": ".attn.out.",
    ".final_layer_norm.": ".mlp_ln.",
    ".fc1.": ".mlp.0.",
    ".fc2.": ".mlp.2.",
    "layer_norm.": "ln_post.",
    "layers.": "blocks.",
}


class LogMel:
    """Columns of the normalised log-mel spectrogram, 100 a second, each centred on its own sample.

    `loudest` is the logarithm (base 10) of the power at the loudest moment; None: it is looked for.
    """

    def __init__(self, samples: Samples, n_mels: int = 80, loudest: float | None = None) -> None:
        self.samples = PaddedSamples(samples, N_FFT)  # sound shorter than one transform is padded to it
        self.n_mels = n_mels
        self.num_columns = len(self.samples) // WHISPER_HOP_LENGTH
        self.loudest = self.peak(0, self.num_columns) if loudest is None else loudest

    def peak(self, start: int, stop: int) -> float:
        """The logarithm (base 10) of the largest power in columns `start` to `stop`."""
        starts = range(start, stop, COLUMNS_PER_PASS)
        return max(float(self._log_power(first, min(first + COLUMNS_PER_PASS, stop)).max()) for first in starts)

    def columns(self, start: int, stop: int) -> torch.Tensor:
        """Normalised columns `start` to `stop` (both within the recording): float32 (n_mels, stop - start)."""
        floored = torch.clamp(self._log_power(start, stop), min=self.loudest - DYNAMIC_RANGE)
        return (floored + 4.0) / 4.0

    def silence(self, columns: int) -> torch.Tensor:
        """As many normalised columns of digital silence in this recording: float32 (n_mels, columns)."""
        return torch.full((self.n_mels, columns), (max(self.loudest - DYNAMIC_RANGE, np.log10(SMALLEST_POWER)) + 4.0) / 4.0)

    def _log_power(self, start: int, stop: int) -> torch.Tensor:
        half, total = N_FFT // 2, len(self.samples)
        first, last = start * WHISPER_HOP_LENGTH, (stop - 1) * WHISPER_HOP_LENGTH  # samples that the columns are centred on
        missing = max(half - first, 0), max(last + half - total, 0)  # the recording is mirrored at its ends
        reach = max(*missing, 1) + 1  # mirroring needs one sample more than it adds
        sound = self.samples[min(max(first - half, 0), total - reach) : max(min(last + half, total), reach)]
        padded = F.pad(torch.from_numpy(np.asarray(sound, dtype=np.float32))[None], missing, mode="reflect")[0]
        spectrum = torch.stft(padded, N_FFT, WHISPER_HOP_LENGTH, window=torch.hann_window(N_FFT), center=False, return_complex=True)
        power = mel_filters(spectrum.device, self.n_mels) @ (spectrum.abs() ** 2)  # m t
        return torch.clamp(power, min=SMALLEST_POWER).log10()


class PaddedSamples(Excerpt):
    """Samples that go on with digital silence up to a length of `total`; longer ones stay as they are."""

    def __init__(self, samples: Samples, total: int) -> None:
        super().__init__(samples, 0, max(total, len(samples)))


def load_whisper_encoder(path: Path) -> AudioEncoder:
    """Whisper's encoder, float32, of openai-whisper's file or a Hugging Face folder; no download, no code of it. Raises WeightsError."""
    path = Path(path)
    encoder = _from_folder(path) if path.is_dir() else _from_file(path)
    return encoder.float().eval().requires_grad_(False)


def whisper_sha256(path: Path, hint: str) -> str:
    """Checksum of an audio encoder's file, or of a folder's configuration and weights. Raises WeightsError with the `hint`."""
    if not path.is_dir():
        return file_sha256(path, hint)
    files = sorted(file for file in path.iterdir() if file.name == CONFIG or file.suffix in (".safetensors", ".bin"))
    return hashlib.sha256("".join(file_sha256(file, hint) for file in files).encode()).hexdigest()


def _from_file(path: Path) -> AudioEncoder:
    checkpoint = read_checkpoint(path)
    if not {"dims", "model_state_dict"} <= checkpoint.keys():
        advice = f"name its folder, {path.parent}" if (path.parent / CONFIG).is_file() else "use tiny.pt or small.pt as published"
        raise WeightsError(f"{path} is not a Whisper checkpoint (no 'dims' and 'model_state_dict' in it): {advice}.")
    try:
        dims = ModelDimensions(**checkpoint["dims"])
    except TypeError as error:
        raise WeightsError(f"{path} names sizes that Whisper does not know ({error}): use tiny.pt or small.pt as published.") from error
    model = Whisper(dims)
    load_strict(model, checkpoint["model_state_dict"], path, hint="it may be damaged: download it again")
    return model.encoder


def _from_folder(folder: Path) -> AudioEncoder:
    """The encoder of a folder that `WhisperModel.save_pretrained` or `WhisperForConditionalGeneration.save_pretrained` wrote."""
    from transformers import WhisperConfig, WhisperModel  # takes seconds to import

    advice = "name a folder such as that of openai/whisper-tiny, or a file of openai-whisper"
    if not (folder / CONFIG).is_file():
        raise WeightsError(f"{folder} is no folder of a Whisper model (no {CONFIG} in it): {advice}.")
    try:
        with _quiet_transformers():
            kind = WhisperConfig.get_config_dict(folder, local_files_only=True)[0].get("model_type")
            if kind != WhisperConfig.model_type:
                raise WeightsError(f"{folder / CONFIG} describes {kind or 'another network'} and not {WhisperConfig.model_type}: {advice}.")
            model, told = WhisperModel.from_pretrained(
                folder, local_files_only=True, output_loading_info=True, ignore_mismatched_sizes=True
            )
    except WeightsError:
        raise
    except Exception as error:  # transformers raises errors of many libraries for damaged files
        reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
        if "weights_only" in reason:
            reason = "it holds Python objects besides tensors, which could run code"
        raise WeightsError(f"{folder} cannot be read as a Whisper model ({reason}): {advice}.") from error
    wrong = sorted(str(key) for key in (*told["missing_keys"], *(entry[0] for entry in told["mismatched_keys"])))
    wrong = [key for key in wrong if key.startswith("encoder.")]
    if wrong:
        raise WeightsError(
            f"{folder} lacks {len(wrong)} entries of Whisper's encoder or has them in other shapes (such as {wrong[0]}): download it again."
        )
    config = model.config
    sizes = (config.num_mel_bins, config.max_source_positions, config.d_model, config.encoder_attention_heads, config.encoder_layers)
    encoder = AudioEncoder(*sizes)
    weights = model.encoder.state_dict()
    for theirs, ours in _NAMES.items():
        weights = {key.replace(theirs, ours): value for key, value in weights.items()}
    load_strict(encoder, weights, folder, advice)
    return encoder


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Without progress bars and warnings of transformers, which would stand between those of a command."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


class Audio2Feature(nn.Module):
    """Whisper's encoder as feature extractor.

    Args:
        feat_length: video frames of sound in a window before and after its own frame.
        limit: see `limited`, which is for windows alone.
    """

    def __init__(self, encoder: AudioEncoder, feat_length: tuple[int, int] = (2, 2), limit: float = 0.0) -> None:
        super().__init__()
        self.encoder = encoder
        self.feat_length, self.limit = feat_length, limit
        self.context, self.width = encoder.positional_embedding.shape  # steps in one pass, width of one token

    @property
    def device(self) -> torch.device:
        return self.encoder.positional_embedding.device

    @torch.no_grad()
    def encode(self, mel: torch.Tensor) -> torch.Tensor:
        """States at every depth, before the final norm, of normalised log-mel (m, t), filled with 0.0: float32 (t // 2, 1 + blocks, d)."""
        steps = mel.shape[1] // WHISPER_MEL_PER_STEP
        weight = self.encoder.conv1.weight
        mel = F.pad(mel, (0, self.context * WHISPER_MEL_PER_STEP - mel.shape[1])).to(weight)
        x = F.gelu(self.encoder.conv1(mel[None]))
        x = F.gelu(self.encoder.conv2(x))
        states = [(rearrange(x, "1 d t -> 1 t d") + self.encoder.positional_embedding).to(weight.dtype)]
        for block in self.encoder.blocks:
            states.append(block(states[-1]))
        return torch.cat(states)[:, :steps].transpose(0, 1).float()  # t l d

    def windows(self, samples: Samples, fps: Fraction = Fraction(VIDEO_FPS), strength: float = 1.0) -> "AudioWindows":
        """The windows of a recording at a frame rate, computed when they are asked for; `strength`: see `AudioWindows`."""
        return AudioWindows(self, LogMel(samples, self.encoder.conv1.in_channels), fps, strength)


def limited(states: torch.Tensor, limit: float) -> torch.Tensor:
    """Features no further than `limit` from 0 (0: as they are).

    One or two steps of a recording gather what attention has no use for, with values up to 650 in Whisper tiny.en's last block
    (attention sinks, arXiv 2309.17453), beside which a small network learns little of the others.
    """
    return states.clamp(-limit, limit) if limit else states


def window_steps(start: int, stop: int, feat_length: tuple[int, int], num_steps: int, fps: Fraction = Fraction(VIDEO_FPS)) -> torch.Tensor:
    """Encoder steps that the windows of video frames `start` to `stop` consist of (f p); the first and last step repeat beyond the ends."""
    before, after = feat_length
    moments = torch.tensor([int(i * WHISPER_STEPS_PER_SECOND / fps) for i in range(start, stop)])
    return (moments[:, None] + torch.arange(-2 * before, 2 * after + 2)).clamp(0, num_steps - 1)


class AudioWindows:
    """A window of features per video frame at constant memory: long sound in pieces that share a third, passing over linearly.

    `strength`: how far the features lie from those of silence in the same place, as a share of how far the recording's do: 0 is silence,
    1 the recording, at no cost, above 1 more of it (a line through the two).
    """

    def __init__(self, extractor: Audio2Feature, log_mel: LogMel, fps: Fraction, strength: float = 1.0) -> None:
        self.extractor = extractor
        self.log_mel = log_mel
        self.fps = fps
        self.strength = strength
        self.num_steps = max(log_mel.num_columns // WHISPER_MEL_PER_STEP, 1)
        overlap = extractor.context // OVERLAP_SHARE
        self.stride = extractor.context - overlap  # steps between the starts of two pieces
        self.blend = extractor.context // BLEND_SHARE
        self.seam = self.stride + (overlap - self.blend) // 2  # step of a piece at which it begins to give way to the next
        self.num_pieces = 1 + max(0, -(-(self.num_steps - extractor.context) // self.stride))
        self._piece = lru_cache(PIECES_KEPT)(self._encode_piece)
        self._silence = lru_cache(PIECES_KEPT)(self._encode_silence)

    def frames(self, start: int, stop: int) -> torch.Tensor:
        """Windows of video frames `start` to `stop`: float32 (f, n, d) on the encoder's device."""
        steps = window_steps(start, stop, self.extractor.feat_length, self.num_steps, self.fps)
        sound = self._windows(steps, self._piece)
        if self.strength == 1:
            return sound
        return limited(torch.lerp(self._windows(steps, self._silent_piece), sound, self.strength), self.extractor.limit)

    def _windows(self, steps: torch.Tensor, piece: Callable[[int], torch.Tensor]) -> torch.Tensor:
        """Windows (f, n, d) of encoder steps (f, p), from pieces of the recording or of silence."""
        first = int(steps.min())
        states = limited(self._states(first, int(steps.max()) + 1, piece), self.extractor.limit)
        return rearrange(states[(steps - first).to(states.device)], "f p l d -> f (p l) d")

    def features(self, start: int, stop: int) -> torch.Tensor:
        """States of encoder steps `start` to `stop`: float32 (t, 1 + number of blocks, d)."""
        return self._states(start, stop, self._piece)

    def _states(self, start: int, stop: int, encoded: Callable[[int], torch.Tensor]) -> torch.Tensor:
        steps = torch.arange(start, stop)
        first = max(0, (start - self.extractor.context) // self.stride)
        last = min(self.num_pieces - 1, stop // self.stride)
        states = 0
        for index in range(first, last + 1):
            share = self._handed_over(index - 1, steps) - self._handed_over(index, steps)  # over all pieces they add up to 1
            if share.any():
                piece = encoded(index)
                rows = (steps - index * self.stride).clamp(0, len(piece) - 1)
                states = states + share.to(piece.device)[:, None, None] * piece[rows.to(piece.device)]
        return states

    def _handed_over(self, index: int, steps: torch.Tensor) -> torch.Tensor:
        """How far piece `index` has given way to the next one at each step: 0 before its seam, 1 after it."""
        if index in (-1, self.num_pieces - 1):  # before the first piece, and the last, which gives way to none
            return torch.full((len(steps),), float(index < 0))
        return ((steps - index * self.stride - self.seam + 1) / (self.blend + 1)).clamp(0, 1)

    def _encode_piece(self, index: int) -> torch.Tensor:
        return self.extractor.encode(self.log_mel.columns(*self._columns(index)).to(self.extractor.device))

    def _silent_piece(self, index: int) -> torch.Tensor:
        start, stop = self._columns(index)
        return self._silence(stop - start)  # of all pieces but the last it is the same

    def _encode_silence(self, columns: int) -> torch.Tensor:
        return self.extractor.encode(self.log_mel.silence(columns).to(self.extractor.device))

    def _columns(self, index: int) -> tuple[int, int]:
        """First and last column (half open) of the spectrogram of a piece."""
        start = index * self.stride * WHISPER_MEL_PER_STEP
        return start, min(start + self.extractor.context * WHISPER_MEL_PER_STEP, self.log_mel.num_columns)
