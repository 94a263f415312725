"""The shortest test of a SyncNet's data: does a network learn one batch by heart, or does it stay at chance?"""

import logging
import time
from collections import deque
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from latentsync.data.batches import SyncNetBatch, Turn
from latentsync.data.clip_dataset import ClipDataset, collate
from latentsync.faces.mask import to_pixels
from latentsync.losses.sync import cosine_loss, syncnet_frames
from latentsync.models.stable_syncnet import EncoderSizes, StableSyncNet
from latentsync.models.syncnet import SyncNet
from latentsync.training.syncnet_step import CHANCE

logger = logging.getLogger(__name__)

SAMPLES = 16  # half of them in step
LEAST_STEPS = 60  # fewer do not show whether anything is learnt
LEARNT = 0.1  # a loss this much below chance has left it
_ENOUGH = 0.4  # a loss at which the answer is clear
_TRIES = 8  # samples that are drawn for each one that is kept
_TRIAL = 2  # samples of the step that is timed
_SMALL_SIDE = 64  # pixels across of what the small network sees
_WIDTHS = (32, 64, 96, 128)  # of the small network's blocks; the last one repeats
_LEARNING_RATES = {"real": 1e-4, "small": 1e-3}
_RECENT = 5  # steps that the last loss is averaged over


@dataclass(frozen=True)
class Overfit:
    """How the test went."""

    network: str  # what was trained, in words
    samples: int
    steps: int
    seconds: float
    first: float  # loss at the start
    last: float  # mean of the last few

    @property
    def learnt(self) -> bool:
        """Whether the loss has left chance."""
        return self.last < CHANCE - LEARNT

    @property
    def decided(self) -> bool:
        """Whether it was tried long enough to tell."""
        return self.learnt or self.steps >= LEAST_STEPS


def balanced_batch(dataset: "ClipDataset[SyncNetBatch]", samples: int = SAMPLES) -> SyncNetBatch:
    """Samples of different clips, half of them in step as far as can be. Raises InputError where clips cannot be read."""
    kept: dict[int, list[SyncNetBatch]] = {0: [], 1: []}
    for position in range(_TRIES * samples):
        sample = dataset[Turn(position, position * max(1, len(dataset) // samples) % len(dataset))]
        same = kept[int(sample.label)]
        if len(same) < samples // 2:
            same.append(sample)
        if sum(map(len, kept.values())) == samples:
            break
    return collate([*kept[0], *kept[1]])


def overfit(
    batch: SyncNetBatch, real: SyncNet | None, *, lower: bool, seconds: float, device: torch.device, show_progress: bool = False
) -> Overfit:
    """Train on one batch for `seconds` at most. Where there is no `real` network, or it is too slow here, a small one takes its place.

    Args:
        lower: SyncNet looks at the lower half of the face.
    """
    frames, mel, label = pixels_of(batch, lower).to(device), batch.mel.to(device), batch.label.to(device)
    network, words, rate = None, "", ""
    if real is not None:
        step = _time_a_step(real.to(device), frames, mel, label)
        rate = f"a step of the configured network takes about {step:.3g} s here"
        if step * LEAST_STEPS <= seconds:
            network, words = real, f"the configured network ({_millions(real)}; {rate})"
    if network is None:
        frames = F.interpolate(frames, size=(_SMALL_SIDE * frames.shape[-2] // frames.shape[-1], _SMALL_SIDE), mode="area")
        network = small_network(frames, mel).to(device)
        why = f"{rate}, too slow for {seconds:.0f} s" if rate else "the configured one looks at latents"
        words = f"a small network ({_millions(network)}, {_SMALL_SIDE} pixels across; {why})"
    return _train(network, words, (frames, mel, label), seconds, _LEARNING_RATES["real" if network is real else "small"], show_progress)


def pixels_of(batch: SyncNetBatch, lower: bool) -> Tensor:
    """The pictures of a batch as SyncNet takes them, b (f c) h w in [-1, 1]."""
    return syncnet_frames(to_pixels(batch.faces), lower)


def small_network(frames: Tensor, mel: Tensor) -> StableSyncNet:
    """A small SyncNet that fits inputs of these sizes: b (f c) h w and b 1 80 t."""
    return StableSyncNet(_sizes(mel), _sizes(frames))


def _sizes(example: Tensor) -> EncoderSizes:
    """Blocks that halve a picture until one cell is left."""
    height, width = example.shape[-2:]
    factors: list[list[int]] = []
    while height > 1 or width > 1:
        factors.append([2 if height > 1 and height >= width // 2 else 1, 2 if width > 1 and width >= height // 2 else 1])
        height, width = (size // factor for size, factor in zip((height, width), factors[-1], strict=True))
    widths = [*_WIDTHS[: len(factors)], *[_WIDTHS[-1]] * (len(factors) - len(_WIDTHS))]
    return EncoderSizes(example.shape[1], widths, factors, [0] * len(factors))


def _time_a_step(network: nn.Module, frames: Tensor, mel: Tensor, label: Tensor) -> float:
    """Seconds of one training step with the whole batch; on a processor from one with a few samples, on a GPU from the second one."""
    samples = len(label) if frames.is_cuda else _TRIAL
    seconds = 0.0
    for _ in range(2 if frames.is_cuda else 1):
        start = time.monotonic()
        cosine_loss(*network(frames[:samples], mel[:samples]), label[:samples]).mean().backward()
        if frames.is_cuda:
            torch.cuda.synchronize()
        seconds = time.monotonic() - start
    return seconds * len(label) / min(samples, len(label))


def _train(network: SyncNet, words: str, batch: tuple[Tensor, Tensor, Tensor], seconds: float, rate: float, show_progress: bool) -> Overfit:
    frames, mel, label = batch
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate)
    network.train()
    losses: deque[float] = deque(maxlen=_RECENT)
    first, steps, start = 0.0, 0, time.monotonic()
    with tqdm(desc="one batch by heart", unit="step", disable=None if show_progress else True, leave=False) as bar:
        while time.monotonic() - start < seconds:
            loss = cosine_loss(*network(frames, mel), label).mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            losses.append(float(loss.detach()))
            first = losses[0] if steps == 0 else first
            steps += 1
            bar.update()
            bar.set_postfix_str(f"loss {losses[-1]:.3f}")
            if max(losses) < _ENOUGH and len(losses) == _RECENT:
                break
    return Overfit(words, len(label), steps, time.monotonic() - start, first, sum(losses) / max(1, len(losses)))


def _millions(network: nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in network.parameters()) / 1e6:.2g} M parameters"
