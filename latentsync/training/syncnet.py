"""Training of SyncNet: the table of losses, one step, and everything that a training is built of."""

import logging
import math
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from latentsync.config import SyncNetConfig
from latentsync.constants import LATENT_CHANNELS, RGB, VAE_FACTOR
from latentsync.data.clip_index import Catalog, read_mouth
from latentsync.data.features import Mels
from latentsync.data.sampling import SYNCNET_LENGTHS, SyncNetBatch, sample_generator
from latentsync.data.syncnet_dataset import SyncNetDataset
from latentsync.errors import ConfigError, InputError, first_line
from latentsync.faces.mask import to_pixels
from latentsync.losses.sync import accuracy, cosine_loss, infonce_loss
from latentsync.mel import BANDS, window_length
from latentsync.models.syncnet import SyncNet, make_syncnet, syncnet_frames
from latentsync.models.vae import LatentCodec
from latentsync.training.logging import TRAINING, VALIDATION, History
from latentsync.training.trainer import (
    BatchValidator,
    Losses,
    TrainingTask,
    ValidationSum,
    cache_folder,
    held_out_batches,
    load_codec,
    open_catalogs,
    seed_everything,
    start_weights,
)
from latentsync.weights import load_strict, read_state_dict

logger = logging.getLogger(__name__)

CHANCE = math.log(2)  # binary cross-entropy of a network that knows nothing
STUCK = 0.03  # a loss that is not further below chance than this has not begun to learn
RECENT = 200  # steps whose mean loss is compared with chance
FEW_CLIPS, SMALL_BATCH = 1000, 128  # below these it learns late, or never begins to
SCALE_CLIPS = 64  # clips whose mouths say how much each channel varies
MIN_DEVIATION = 1e-2  # channels that hardly move are not blown up
SYNC, INFONCE, MOUTH = "sync", "infonce", "mouth"
_NETWORK = "syncnet."  # prefix of the published weights among the trainee's
_HINT = "name the configuration that it was trained with"


class SyncNetOutput(NamedTuple):
    """Embeddings of frames and sound; and, where they are wanted, the mouth channels that a linear layer finds in each, standardised."""

    visual: Tensor  # b d, of length 1
    audio: Tensor  # b d, of length 1
    visual_mouth: Tensor | None = None  # b f k
    audio_mouth: Tensor | None = None  # b f k


class SyncNetTrainee(nn.Module):
    """SyncNet and, optionally, one linear layer from both embeddings to mouth channels; `mouth_scale`: their mean and deviation, 2 k."""

    def __init__(self, syncnet: SyncNet, mouth_scale: Tensor | None = None, num_frames: int = 16) -> None:
        super().__init__()
        self.syncnet = syncnet
        self.mouth = None if mouth_scale is None else MouthHead(syncnet.width, mouth_scale, num_frames)

    def forward(self, frames: Tensor, mel: Tensor) -> SyncNetOutput:
        """Frames b (f c) h w and mel b 1 80 t."""
        visual, audio = self.syncnet(frames, mel)
        return SyncNetOutput(visual, audio) if self.mouth is None else SyncNetOutput(visual, audio, self.mouth(visual), self.mouth(audio))


class MouthHead(nn.Module):
    """One linear layer from an embedding to the mouth channels of every frame, each with mean 0 and standard deviation 1."""

    def __init__(self, width: int, scale: Tensor, num_frames: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, num_frames * scale.shape[1])
        nn.init.zeros_(self.linear.weight)  # begins with the constant guess
        nn.init.zeros_(self.linear.bias)
        self.gain = width**0.5  # of unit vectors
        self.register_buffer("mean", scale[0].float().clone())
        self.register_buffer("deviation", scale[1].float().clone())

    def forward(self, embedding: Tensor) -> Tensor:
        """Unit vectors b d -> b f k, standardised."""
        return self.linear(self.gain * embedding).unflatten(1, (-1, len(self.mean)))

    def loss(self, predicted: Tensor, mouth: Tensor) -> Tensor:
        """Mean squared error of predictions (standardised) against the true channels (raw), both b f k; 1 for a constant guess."""
        return F.mse_loss(predicted.float(), (mouth.float() - self.mean) / self.deviation)


def mouth_loss(trainee: SyncNetTrainee, output: SyncNetOutput, batch: SyncNetBatch) -> Tensor:
    """The error of the mouth channels during the frames and during the sound, found in the embedding of each."""
    return trainee.mouth.loss(output.visual_mouth, batch.mouth) + trainee.mouth.loss(output.audio_mouth, batch.audio_mouth)


# Key of `run.loss_weights` -> trainee, its output, batch -> scalar. The last two make small networks learn in a fraction of the time.
LOSSES: dict[str, Callable[[SyncNetTrainee, SyncNetOutput, SyncNetBatch], Tensor]] = {
    SYNC: lambda trainee, output, batch: cosine_loss(output.visual, output.audio, batch.label).mean(),  # arXiv 2412.09262
    INFONCE: lambda trainee, output, batch: infonce_loss(output.visual, output.audio, batch.label),
    MOUTH: mouth_loss,
}


class SyncNetStep:
    """Calls SyncNet once on a batch and computes the losses that have a weight; the sync loss is computed anyway, to be watched."""

    def __init__(self, weights: Mapping[str, float], *, lower_half: bool, codec: LatentCodec | None = None, seed: int = 0) -> None:
        """`codec` is given for a SyncNet of latents; `seed` is that of the samples of its posterior."""
        self.wanted = {SYNC, *(name for name, weight in weights.items() if weight > 0)}
        self.lower_half, self.codec, self.seed = lower_half, codec, seed

    def __call__(self, model: nn.Module, batch: SyncNetBatch) -> Losses:
        output = model(self.view(batch), batch.mel)
        trainee = getattr(model, "module", model)  # distributed training wraps the network
        return {name: loss(trainee, output, batch) for name, loss in LOSSES.items() if name in self.wanted}

    def view(self, batch: SyncNetBatch) -> Tensor:
        """The visual encoder's input: b (f c) h w."""
        if self.codec is None:
            faces = batch.faces  # b f h w 3
            faces = faces[:, :, faces.shape[2] // 2 :] if self.lower_half else faces  # in uint8, a quarter of what pixels take
            return syncnet_frames(to_pixels(faces), lower=False)
        pixels = to_pixels(batch.faces)  # b f 3 h w
        shape = (pixels.shape[1], LATENT_CHANNELS, *(side // VAE_FACTOR for side in pixels.shape[-2:]))
        noise = torch.stack([torch.randn(shape, generator=sample_generator(self.seed, place)) for place in batch.position.tolist()])
        with torch.autocast(pixels.device.type, enabled=False), torch.no_grad():
            latents = self.codec.encode(pixels.flatten(0, 1).to(self.codec.dtype), noise.flatten(0, 1).to(pixels.device, self.codec.dtype))
        return syncnet_frames(latents.float().unflatten(0, pixels.shape[:2]), self.lower_half)


class SyncNetValidator(BatchValidator):
    """Cosine loss and accuracy, the share of pairs on the right side of 0.5."""

    name = "held-out pairs"

    def measure(self, model: nn.Module, batch: SyncNetBatch) -> dict[str, ValidationSum]:
        visual, audio, *_ = model(self.step.view(batch), batch.mel)
        loss, count = float(cosine_loss(visual, audio, batch.label).sum()), len(batch.label)
        right = float(accuracy(visual, audio, batch.label)) * count
        return {SYNC: ValidationSum(loss, count), "accuracy": ValidationSum(right, count, is_share=True)}


class ChanceWatch:
    """Says once, after so many steps, that the loss is still that of a network that knows nothing, and the likely causes."""

    def __init__(self, after: int, batch_size: int, num_clips: int) -> None:
        self.after, self.batch_size, self.num_clips = after, batch_size, num_clips
        self._recent: deque[float] = deque(maxlen=RECENT)

    def __call__(self, step: int, losses: Mapping[str, float]) -> str | None:
        self._recent.append(losses[SYNC])
        mean = sum(self._recent) / len(self._recent)
        if step != self.after or mean < CHANCE - STUCK:
            return None
        causes = []
        if self.batch_size < SMALL_BATCH:
            causes.append(
                f"batches of {self.batch_size} (from {SMALL_BATCH} on it begins to learn sooner: raise run.gradient_accumulation_steps)"
            )
        if self.num_clips < FEW_CLIPS:
            causes.append(f"only {self.num_clips} clips (rendered heads with run.loss_weights.mouth=1 help)")
        causes.append("sound that is not in step with the picture, or faces that are not aligned")
        return (
            f"After {step} steps the sync loss is {mean:.3f}, still at chance (0.693). Likely causes: {'; '.join(causes)}. "
            "python -m scripts.check_training_data CONFIG checks them."
        )


def publish(weights: Mapping[str, Tensor], step: int, history: History) -> dict[str, Any]:
    """The published file of a SyncNet: weights without what only training needs, the step, and the loss curves."""
    state_dict = {name.removeprefix(_NETWORK): value for name, value in weights.items() if name.startswith(_NETWORK)}
    curves: dict[str, list[float]] = {f"{kind}_{what}_list": [] for kind in ("train", "val") for what in ("step", "loss")}
    names = {TRAINING: "train", VALIDATION: "val"}
    for point in history.points():
        if SYNC in point.values:
            curves[f"{names[point.kind]}_step_list"].append(point.step)
            curves[f"{names[point.kind]}_loss_list"].append(point.values[SYNC])
    return {"state_dict": state_dict, "global_step": step, **curves}


def build_syncnet(config: SyncNetConfig, accelerator: Accelerator, show_progress: bool = True) -> TrainingTask:
    """Everything that SyncNet's training needs. Raises InputError, ConfigError, WeightsError where clips or weights cannot be used."""
    data, run = config.data, config.run
    train, held_out = open_catalogs(data, SYNCNET_LENGTHS * data.num_frames, accelerator, show_progress, data.resolution)
    with_mouth = run.loss_weights.get(MOUTH, 0) > 0
    dataset = partial(
        SyncNetDataset,
        mels=Mels(cache_folder(data)),
        num_frames=data.num_frames,
        resolution=data.resolution,
        seed=run.seed,
        faces_cache=cache_folder(data) if data.cache_faces else None,
    )
    training_set = dataset(train, with_mouth=with_mouth)
    seed_everything(run, accelerator)
    check_sizes(config)
    network = make_syncnet(config.model)
    trainee = SyncNetTrainee(network, mouth_scale(train) if with_mouth else None, data.num_frames)
    if (start := start_weights(config.ckpt, data)) is not None:
        load_strict(network, read_state_dict(start)[0], start, _HINT)
    codec = load_codec(config, accelerator) if data.latent_space else None
    step = SyncNetStep(run.loss_weights, lower_half=data.lower_half, codec=codec, seed=run.seed)
    validators = [] if held_out is None else [SyncNetValidator(held_out_batches(dataset(held_out), config, accelerator), step)]
    batch = data.batch_size * run.gradient_accumulation_steps * accelerator.num_processes
    return TrainingTask(
        model=trainee,
        step=step,
        dataset=training_set,
        publish=publish,
        validators=validators,
        publishes_curves=True,
        watch=ChanceWatch(run.chance_steps, batch, len(train)),
    )


def check_sizes(config: SyncNetConfig) -> None:
    """Try the network out, without weights and without computing, on what the data are going to be; ConfigError where they do not fit."""
    data = config.data
    side, channels = (data.resolution // VAE_FACTOR, LATENT_CHANNELS) if data.latent_space else (data.resolution, RGB)
    frames = torch.empty(2, data.num_frames, channels, side, side, device="meta")
    mel = torch.empty(2, 1, BANDS, window_length(data.num_frames), device="meta")
    try:
        with torch.device("meta"):
            make_syncnet(config.model)(syncnet_frames(frames, data.lower_half), mel)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"SyncNet's blocks (model) do not fit {data.num_frames} faces of {data.resolution} pixels: {first_line(error)}; change "
            "data.resolution, data.num_frames or the factors."
        ) from None


def mouth_scale(catalog: Catalog) -> torch.Tensor:
    """Mean and standard deviation of each mouth channel over the first clips: 2 k. Raises InputError."""
    tables = [read_mouth(clip.path) for clip in catalog.clips[:SCALE_CLIPS]]
    if len({table.shape[1] for table in tables}) > 1:
        raise InputError("The clips have different numbers of mouth channels: render them again with one version of the talking heads")
    values = np.concatenate(tables)
    return torch.from_numpy(np.stack([values.mean(0), values.std(0).clip(MIN_DEVIATION)])).float()
