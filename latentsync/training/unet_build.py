"""The denoiser's configuration to what its training needs."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from latentsync.config import Config
from latentsync.data.catalog import Catalog
from latentsync.data.clips import UNET_LENGTHS
from latentsync.data.latents import LatentStore
from latentsync.data.loader import fixed_batches
from latentsync.data.sound import Features, Mels
from latentsync.data.unet_dataset import UNetDataset
from latentsync.errors import ConfigError
from latentsync.faces.mask import fixed_mask
from latentsync.losses.perceptual import load_lpips
from latentsync.losses.reader import ReaderLoss
from latentsync.losses.trepa import TREPALoss
from latentsync.models.mouth_reader import load_mouth_reader
from latentsync.models.unet import UNet3DConditionModel
from latentsync.models.unet_weights import start_from_stable_diffusion
from latentsync.models.vae import LatentCodec, load_vae
from latentsync.third_party.videomae import load_videomae
from latentsync.training.build import (
    cache_folder,
    clip_namer,
    default_weights,
    freeze,
    half_precision,
    open_catalogs,
    seed_everything,
    start_weights,
    whisper_weights,
)
from latentsync.training.draws import Chance
from latentsync.training.feed import Problems
from latentsync.training.history import History
from latentsync.training.parts import Parts, Tally, Validator
from latentsync.training.syncnet_build import load_judge
from latentsync.training.unet_step import READER, SYNC, Judges, UNetStep

logger = logging.getLogger(__name__)

COMPARED = ("lpips", "trepa", *READER)  # losses that look at true faces
SYNCNET, VGG16, VIDEOMAE = "syncnet", "vgg16", "videomae"


def build_unet(config: Config, codec: LatentCodec, accelerator: Accelerator, show_progress: bool = True) -> Parts:
    """Everything that the denoiser's training needs, but for the validation video.

    Raises:
        InputError, ConfigError, WeightsError: clips or weights cannot be used, in one sentence.
    """
    data, run = config.data, config.run
    train, held_out = open_catalogs(data, UNET_LENGTHS * data.num_frames, accelerator, show_progress, data.resolution)
    mask = fixed_mask(data.resolution, data.mask).to(accelerator.device)
    builder = Datasets(config, codec, mask, accelerator, show_progress)
    seed_everything(run, accelerator)
    unet = start_unet(config)
    numbers = freeze(unet, run.trainable_modules)
    unet.enable_gradient_checkpointing(run.enable_gradient_checkpointing)
    logger.info("Training %.1f of %.1f million parameters", numbers / 1e6, sum(part.numel() for part in unet.parameters()) / 1e6)
    step = UNetStep(
        codec,
        mask,
        weights=run.loss_weights,
        seed=run.seed,
        chance=Chance(run.mixed_noise_alpha if run.use_mixed_noise else None, run.coarse_noise, run.noisy_share),
        judges=load_judges(config, accelerator),
        noisy_weight=run.noisy_weight,
        mouth_weight=run.mouth_weight,
        use_reference=run.use_reference,
    )
    validators: list[Validator] = []
    if held_out is not None:
        rank, world = accelerator.process_index, accelerator.num_processes
        batches = fixed_batches(builder(held_out, 0.0), run.num_val_clips, data.batch_size, rank, world, data.num_workers)
        validators.append(UNetValidator(step, batches))
    return Parts(
        model=unet,
        step=step,
        dataset=builder(train, data.audio_dropout),
        num_clips=len(train.clips),
        publish=publish,
        clip_name=clip_namer(train),
        validators=validators,
        prepare=builder.fill,
    )


class Datasets:
    """Catalogs to data sets that share caches; where latents are cached, `fill` computes them."""

    def __init__(self, config: Config, codec: LatentCodec, mask: Tensor, accelerator: Accelerator, show_progress: bool) -> None:
        cache = cache_folder(config.data)
        self.config, self.codec, self.mask = config, codec, mask
        self.accelerator, self.show_progress = accelerator, show_progress
        self.catalogs: list[Catalog] = []  # of the data sets so far
        self.mels = Mels(cache)
        self.features = Features(cache, whisper_weights(config), tuple(config.data.audio_feat_length))
        if self.features.width != config.model.cross_attention_dim:
            raise ConfigError(
                f"{whisper_weights(config)} gives audio tokens {self.features.width} wide and model.cross_attention_dim is "
                f"{config.model.cross_attention_dim}: name another file in weights.whisper, or change the width."
            )
        self.latents = LatentStore(cache, config.data.resolution, config.data.mask) if config.data.cache_latents else None

    def __call__(self, catalog: Catalog, audio_dropout: float) -> UNetDataset:
        """The data set of a catalog."""
        data = self.config.data
        self.catalogs.append(catalog)
        return UNetDataset(
            catalog,
            self.mels,
            self.features,
            num_frames=data.num_frames,
            resolution=data.resolution,
            seed=self.config.run.seed,
            audio_dropout=audio_dropout,
            latents=self.latents,
            counterfactual=data.counterfactual,
            with_faces=any(self.config.run.loss_weights.get(name, 0) > 0 for name in COMPARED),
            faces_cache=cache_folder(data) if data.cache_faces else None,
        )

    def fill(self) -> None:
        """Compute the latents of all clips, where they are cached; called on every process."""
        if self.latents is None:
            return
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        for catalog in self.catalogs:
            self.latents.fill(self.codec, catalog, self.mask, rank, world, show_progress=self.show_progress)
        self.accelerator.wait_for_everyone()


def load_training_codec(config: Config, accelerator: Accelerator) -> LatentCodec:
    """The autoencoder, on the training's device."""
    codec = load_vae(config.weights.vae or default_weights("vae").parent, half_precision(accelerator)).to(accelerator.device)
    codec.slice_size = config.run.vae_slice_size or None
    return codec


def start_unet(config: Config) -> UNet3DConditionModel:
    """The denoiser that training starts from: fresh, or with what a file has for it.

    Raises WeightsError where the file belongs to another network, ConfigError where frozen parts would never be trained at all.
    """
    if config.ckpt.resume_ckpt_path is None and config.run.trainable_modules:
        raise ConfigError(
            "run.trainable_modules leaves the rest of a network untrained that starts from nothing: name a checkpoint to start from in "
            "ckpt.resume_ckpt_path, such as one of stage 1, or set run.trainable_modules=[]."
        )
    start = start_weights(config.ckpt, config.data)
    if start is None:
        if config.ckpt.resume_ckpt_path is None:
            logger.info("Training starts from nothing: ckpt.resume_ckpt_path names no weights")
        unet = UNet3DConditionModel(config.model)
        nn.init.kaiming_uniform_(unet.conv_in.weight, a=5**0.5)  # at zero, as published networks start, nothing would be seen at first
    else:
        unet, report = start_from_stable_diffusion(config.model, start)
        logger.info("Training starts from %s: %s", start, report)
    return unet.to(memory_format=torch.channels_last)


def load_judges(config: Config, accelerator: Accelerator) -> Judges:
    """The networks behind the losses that have a weight.

    Raises ConfigError or WeightsError where one of them is not named or not there.
    """
    weights, files = config.run.loss_weights, config.weights
    sync = lpips = trepa = reader = None
    if any(weights.get(name, 0) > 0 for name in SYNC):
        if config.data.syncnet_config_path is None:
            raise ConfigError("run.loss_weights.sync has a weight, but data.syncnet_config_path names no SyncNet: name its YAML file.")
        if weights.get("sync_source", 0) > 0 and not config.data.counterfactual:
            raise ConfigError(
                "run.loss_weights.sync_source asks about what the source says, and without data.counterfactual the source is the target: "
                "set data.counterfactual=true and train on clips with twins, or run.loss_weights.sync_source=0."
            )
        sync = load_judge(config.data.syncnet_config_path, judge_weights(files.syncnet, SYNCNET, "sync"), accelerator)
        sync.check(config.data.num_frames, config.data.resolution)
    if weights.get("lpips", 0) > 0:
        lpips = load_lpips(judge_weights(files.vgg16, VGG16, "lpips")).to(accelerator.device)
        lpips.slice_size = config.run.vae_slice_size or None
    if weights.get("trepa", 0) > 0:
        network = load_videomae(config.videomae, judge_weights(files.videomae, VIDEOMAE, "trepa"))
        network.gradient_checkpointing = config.run.enable_gradient_checkpointing
        trepa = TREPALoss(network.to(accelerator.device, half_precision(accelerator)))
    if wanted := [name for name in READER if weights.get(name, 0) > 0]:
        if files.mouth_reader is None:
            raise ConfigError(f"run.loss_weights.{wanted[0]} has a weight, but weights.mouth_reader names no file: train one first.")
        reader = ReaderLoss(load_mouth_reader(files.mouth_reader), config.run.vae_slice_size or None).to(accelerator.device)
    return Judges(sync, lpips, trepa, reader)


def judge_weights(named: Path | None, name: str, loss: str) -> Path:
    """The file of a judge: the one that is named, or the one in its default place. Raises ConfigError where it is missing."""
    path = named or default_weights(name)
    if not path.is_file():
        raise ConfigError(
            f"The loss '{loss}' needs {path}, which is missing: run `python -m scripts.download_weights --training`, name another file "
            f"with weights.{name}, or set run.loss_weights.{loss}=0."
        )
    return path


class UNetValidator:
    """The losses on fixed held-out clips, each with the noise it had at the validation before."""

    name = "held-out clips"

    def __init__(self, step: UNetStep, batches: Any) -> None:
        self.step, self.batches = step, batches
        self._problems = Problems()

    def __call__(self, model: nn.Module, step: int) -> dict[str, Tally]:
        """Loss -> its sum over the clips, and their number."""
        sums: dict[str, float] = {}
        count = 0
        device = next(model.parameters()).device
        for batch in self.batches:
            self._problems.tell(batch.problems)
            for name, loss in self.step(model, batch.to(device)).items():
                sums[name] = sums.get(name, 0.0) + float(loss) * len(batch.clip)
            count += len(batch.clip)
        return {name: Tally(total, count) for name, total in sums.items()}


def publish(weights: Mapping[str, Tensor], step: int, history: History) -> dict[str, Any]:
    """The published file of a denoiser."""
    return {"global_step": step, "state_dict": {name: value.contiguous() for name, value in weights.items()}}
