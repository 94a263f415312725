"""Sound to one window of features per video frame (LatentSync, section 3.1: audio layers fed by Whisper).

The encoder is Whisper's (arXiv 2212.04356), 50 steps a second. Kept per step: the input embedding with its position added, and the
output of every block. A frame's window is the steps around its moment, each step contributing its states in depth order.
"""

from collections import OrderedDict
from fractions import Fraction

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn
from whisper.model import AudioEncoder

from latentsync.constants import VIDEO_FPS, WHISPER_MEL_PER_STEP, WHISPER_STEPS_PER_SECOND
from latentsync.whisper.log_mel import LogMel, Samples

PIECES_KEPT = 2  # a window may straddle two pieces
OVERLAP_SHARE = 3  # neighbouring pieces share a third of the encoder's context
BLEND_SHARE = 15  # ... and pass over into each other during a fifteenth of it, in the middle of what they share


class Audio2Feature(nn.Module):
    """Whisper's encoder as a feature extractor.

    Args:
        encoder: the encoder alone; its context (1500 steps when published) sets the length of a piece.
        feat_length: how many video frames of sound a window hears before and after its own frame.
    """

    def __init__(self, encoder: AudioEncoder, feat_length: tuple[int, int] = (2, 2)) -> None:
        super().__init__()
        self.encoder = encoder
        self.feat_length = feat_length

    @property
    def device(self) -> torch.device:
        """Where the encoder lives."""
        return self.encoder.positional_embedding.device

    @property
    def context(self) -> int:
        """Steps the encoder sees at once."""
        return self.encoder.positional_embedding.shape[0]

    @property
    def width(self) -> int:
        """Width of one token."""
        return self.encoder.positional_embedding.shape[1]

    @property
    def tokens_per_window(self) -> int:
        """Tokens in one window: positions times states."""
        return 2 * (sum(self.feat_length) + 1) * (1 + len(self.encoder.blocks))

    @torch.no_grad()
    def encode(self, mel: torch.Tensor) -> torch.Tensor:
        """States at every depth of one piece of log-mel.

        Args:
            mel: normalised log-mel (m, t), t at most twice the context; the rest is filled with 0.0 as in training.

        Returns:
            float32 (t // 2, 1 + number of blocks, d), before the final norm.
        """
        steps = mel.shape[1] // WHISPER_MEL_PER_STEP
        weight = self.encoder.conv1.weight
        mel = F.pad(mel, (0, self.context * WHISPER_MEL_PER_STEP - mel.shape[1])).to(weight)
        x = F.gelu(self.encoder.conv1(mel[None]))
        x = F.gelu(self.encoder.conv2(x))
        states = [(rearrange(x, "1 d t -> 1 t d") + self.encoder.positional_embedding).to(weight.dtype)]
        for block in self.encoder.blocks:
            states.append(block(states[-1]))
        return torch.cat(states)[:, :steps].transpose(0, 1).float()  # t l d

    def windows(self, samples: Samples, fps: Fraction = Fraction(VIDEO_FPS)) -> "AudioWindows":
        """The windows of a recording at a frame rate, computed when they are asked for."""
        return AudioWindows(self, LogMel(samples, self.encoder.conv1.in_channels), fps)


def window_steps(start: int, stop: int, feat_length: tuple[int, int], num_steps: int, fps: Fraction = Fraction(VIDEO_FPS)) -> torch.Tensor:
    """Encoder steps that the windows of video frames `start` to `stop` consist of (f p); the first and last step repeat beyond the ends.

    Args:
        feat_length: video frames that a window hears before and after its own.
    """
    before, after = feat_length
    moments = torch.tensor([int(i * WHISPER_STEPS_PER_SECOND / fps) for i in range(start, stop)])
    return (moments[:, None] + torch.arange(-2 * before, 2 * after + 2)).clamp(0, num_steps - 1)


class AudioWindows:
    """One window of audio features per video frame, for sound of any length at constant memory.

    Sound longer than the encoder's context is encoded in pieces that share a third of it. Only the inner part of a piece is kept and
    neighbours pass over into each other linearly, so that nothing jumps where one piece ends. Sound within one context is one piece.
    """

    def __init__(self, extractor: Audio2Feature, log_mel: LogMel, fps: Fraction) -> None:
        self.extractor = extractor
        self.log_mel = log_mel
        self.fps = fps
        self.num_steps = max(log_mel.num_columns // WHISPER_MEL_PER_STEP, 1)
        overlap = extractor.context // OVERLAP_SHARE
        self.stride = extractor.context - overlap  # steps between the starts of two pieces
        self.blend = extractor.context // BLEND_SHARE
        self.seam = self.stride + (overlap - self.blend) // 2  # step of a piece at which it begins to give way to the next
        self.num_pieces = 1 + max(0, -(-(self.num_steps - extractor.context) // self.stride))
        self._pieces: OrderedDict[int, torch.Tensor] = OrderedDict()

    def frames(self, start: int, stop: int) -> torch.Tensor:
        """Windows of video frames `start` to `stop`.

        Returns:
            float32 (f, n, d) on the encoder's device. Frames before the first or after the last step repeat that step.
        """
        steps = window_steps(start, stop, self.extractor.feat_length, self.num_steps, self.fps)
        first = int(steps.min())
        states = self.features(first, int(steps.max()) + 1)
        return rearrange(states[(steps - first).to(states.device)], "f p l d -> f (p l) d")

    def features(self, start: int, stop: int) -> torch.Tensor:
        """States of encoder steps `start` to `stop`: float32 (t, 1 + number of blocks, d)."""
        steps = torch.arange(start, stop)
        first = max(0, (start - self.extractor.context) // self.stride)
        last = min(self.num_pieces - 1, stop // self.stride)
        states = 0
        for index in range(first, last + 1):
            share = self._share(index, steps)
            if share.any():
                piece = self._piece(index)
                rows = (steps - index * self.stride).clamp(0, len(piece) - 1)
                states = states + share.to(piece.device)[:, None, None] * piece[rows.to(piece.device)]
        return states

    def _share(self, index: int, steps: torch.Tensor) -> torch.Tensor:
        """How much of each step piece `index` accounts for; over all pieces the shares of a step add up to one."""
        share = torch.ones(len(steps))
        if index > 0:
            share = share * self._handed_over(index - 1, steps)
        if index + 1 < self.num_pieces:
            share = share * (1 - self._handed_over(index, steps))
        return share

    def _handed_over(self, index: int, steps: torch.Tensor) -> torch.Tensor:
        """How far piece `index` has given way to the next one at each step: 0 before its seam, 1 after it."""
        return ((steps - index * self.stride - self.seam + 1) / (self.blend + 1)).clamp(0, 1)

    def _piece(self, index: int) -> torch.Tensor:
        """States of one piece (t, l, d); the last few pieces are remembered."""
        if index not in self._pieces:
            while len(self._pieces) >= PIECES_KEPT:
                self._pieces.popitem(last=False)
            start = index * self.stride * WHISPER_MEL_PER_STEP
            stop = min(start + self.extractor.context * WHISPER_MEL_PER_STEP, self.log_mel.num_columns)
            self._pieces[index] = self.extractor.encode(self.log_mel.columns(start, stop).to(self.extractor.device))
        self._pieces.move_to_end(index)
        return self._pieces[index]
