"""Accuracy of a SyncNet on pairs and on whole clips of a data set."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from scipy.stats import rankdata
from torch import Tensor, nn
from tqdm import tqdm

from eval.metrics.base import Estimate, bootstrap, ratio, share
from eval.metrics.sync import MAX_OFFSET, WINDOWS_AT_ONCE, SyncMeter, SyncReading, compare
from latentsync.constants import LATENT_CHANNELS, VAE_FACTOR
from latentsync.data.cache import resize_faces
from latentsync.data.features import audio_frames
from latentsync.data.sampling import SyncNetBatch
from latentsync.data.syncnet_dataset import SyncNetDataset
from latentsync.errors import InputError
from latentsync.faces.mask import to_pixels
from latentsync.losses.sync import IN_SYNC, syncnet_frames
from latentsync.mel import window_length, window_start
from latentsync.models.syncnet import SyncNet
from latentsync.models.vae import LatentCodec
from latentsync.training.syncnet import SYNC, SyncNetStep, SyncNetTrainee, SyncNetValidator

THRESHOLDS = np.linspace(0, 1, 101)
_SEED = 0  # of shuffled labels, and of the noise of latents of whole clips


@dataclass(frozen=True)
class Pairs:
    """Pairs of pictures and sound, and how alike SyncNet finds them.

    Attributes:
        cosines: float64 n.
        labels: bool n: both are of the same moment.
        clips: int64 n: the clip of each pair.
        loss: the mean of the training's loss.
        problems: clips that could not be read and whose turn went to the next one, a sentence each.
    """

    cosines: np.ndarray
    labels: np.ndarray
    clips: np.ndarray
    loss: float
    problems: tuple[str, ...] = ()

    def right(self, threshold: float = IN_SYNC) -> np.ndarray:
        """Which pairs are told rightly by cosines above a threshold: bool n."""
        return (self.cosines > threshold) == self.labels

    def accuracy(self) -> Estimate | None:
        """The share told rightly by cosines above 0.5, with Wilson's interval over pairs."""
        return share(self.right().tolist())

    def accuracy_over_clips(self) -> Estimate | None:
        """The same with the wider interval of resampled clips: pairs of one clip resemble each other."""
        places = np.unique(self.clips, return_inverse=True)[1]
        return ratio(np.bincount(places, self.right()).tolist(), np.bincount(places).tolist())

    def shuffled(self) -> Estimate | None:
        """The control: the share told rightly had the labels been shuffled."""
        labels = np.random.default_rng(_SEED).permutation(self.labels)
        return share(((self.cosines > IN_SYNC) == labels).tolist())

    def curve(self) -> np.ndarray:
        """The accuracy at each of `THRESHOLDS`: float64 101."""
        return np.array([self.right(threshold).mean() for threshold in THRESHOLDS])

    def area(self) -> Estimate | None:
        """The area below the ROC curve, with the interval of resampled pairs; None where all labels are equal."""
        return bootstrap(lambda chosen: roc_area(self.cosines[chosen], self.labels[chosen]), len(self.labels))

    def roc(self) -> tuple[np.ndarray, np.ndarray]:
        """Shares of wrong and of right pairs with cosines above each threshold that makes a difference."""
        order = np.argsort(-self.cosines, kind="stable")
        labels, cosines = self.labels[order], self.cosines[order]
        ends = np.append(np.flatnonzero(np.diff(cosines)), len(cosines) - 1)  # equal cosines fall together
        found = [np.append(0, np.cumsum(part)[ends]) / max(1, part.sum()) for part in (~labels, labels)]
        return found[0], found[1]


def roc_area(scores: np.ndarray, labels: np.ndarray) -> float:
    """How often a right pair has a higher score than a wrong one, ties counting half (Hanley and McNeil 1982); NaN without either kind."""
    right, wrong = int(labels.sum()), int((~labels).sum())
    if not right or not wrong:
        return float("nan")
    return float((rankdata(scores)[labels].sum() - right * (right + 1) / 2) / (right * wrong))


class _Listener(nn.Module):
    """A trainee whose cosines are noted."""

    def __init__(self, trainee: SyncNetTrainee) -> None:
        super().__init__()
        self.trainee = trainee
        self.cosines: list[Tensor] = []

    def forward(self, frames: Tensor, mel: Tensor) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """As the trainee."""
        seen, heard, *rest = self.trainee(frames, mel)
        self.cosines.append(F.cosine_similarity(seen.float(), heard.float(), dim=1).double().cpu())
        return seen, heard, *rest


def ask_pairs(
    network: SyncNet, step: SyncNetStep, batches: Iterable[SyncNetBatch], accelerator: Accelerator, progress: "tqdm | None" = None
) -> Pairs:
    """What a network on its device says of batches of pairs, looked at by the very validation of its training.

    Raises InputError where clip after clip cannot be read.
    """
    labels, clips, problems = [], [], []

    def noting() -> Iterator[SyncNetBatch]:
        for batch in batches:
            labels.append(batch.label > IN_SYNC)
            clips.append(batch.clip)
            problems.extend(batch.problems)
            yield batch
            if progress is not None:
                progress.update(len(batch.label))

    listener = _Listener(SyncNetTrainee(network)).eval()
    with torch.no_grad(), accelerator.autocast():
        tally = SyncNetValidator(step, noting())(listener, 0)[SYNC]
    joined = [torch.cat(parts).numpy() for parts in (listener.cosines, labels, clips)]
    return Pairs(*joined, loss=tally.total / tally.count, problems=tuple(dict.fromkeys(problems)))


class LatentMeter(SyncMeter):
    """A trained SyncNet of latents that looks at whole clips; each face is encoded once."""

    def __init__(self, network: SyncNet, codec: LatentCodec, *, resolution: int, num_frames: int, lower_half: bool) -> None:
        super().__init__(network, resolution=resolution, num_frames=num_frames, lower_half=lower_half)
        self.codec = codec

    @torch.no_grad()
    def see(self, faces: Tensor) -> Tensor:
        """See `SyncMeter.see`."""
        starts = self._starts(len(faces), "pictures")
        pixels = to_pixels(resize_faces(faces, self.resolution))  # f c h w
        cells = (len(pixels), LATENT_CHANNELS, *(side // VAE_FACTOR for side in pixels.shape[-2:]))
        noise = torch.randn(cells, generator=torch.Generator().manual_seed(_SEED))
        device, dtype = next(self.network.parameters()).device, self.codec.dtype
        with torch.autocast(device.type, enabled=False):
            latents = self.codec.encode(pixels.to(device, dtype), noise.to(device, dtype)).float()  # f 4 h w
        found = []
        for part in starts.split(WINDOWS_AT_ONCE):
            windows = torch.stack([latents[start : start + self.num_frames] for start in part.tolist()])  # b f 4 h w
            found.append(self.network.embed_frames(syncnet_frames(windows, self.lower_half)).float().cpu())
        return torch.cat(found)


def read_offset(dataset: SyncNetDataset, place: int, meter: SyncMeter, most_frames: int) -> SyncReading:
    """Offset and confidence of a clip, of which the first frames are looked at. Raises InputError where it is too short or unreadable."""
    clip, length = dataset.catalog.clips[place], dataset.num_frames
    mel = dataset.mels(clip.path)
    frames = min(clip.frames, audio_frames(mel), most_frames)
    if frames < length + MAX_OFFSET:
        raise InputError(f"{clip.path} is {frames} frames long and an offset needs {length + MAX_OFFSET}: measure longer clips")
    seen = meter.see(dataset.faces(clip, range(frames)))
    return compare(seen, meter.hear(mel[:, : window_start(frames - length) + window_length(length)]))


def spread(count: int, wanted: int) -> Sequence[int]:
    """At most `wanted` of the places 0 .. count - 1, evenly spread."""
    return range(count) if wanted >= count else [place * count // wanted for place in range(wanted)]
