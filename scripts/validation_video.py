"""A validation of the denoiser that can be watched: a video through the whole pipeline with the weights of the moment."""

import logging
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from latentsync.config import Config
from latentsync.errors import ConfigError
from latentsync.faces.detector import build_detector
from latentsync.models.vae import LatentCodec
from latentsync.pipelines.build import pipeline_settings
from latentsync.pipelines.lipsync_pipeline import LipsyncPipeline
from latentsync.pipelines.options import LipsyncOptions
from latentsync.training.trainer import ValidationSum, default_weights, output_folder
from latentsync.training.unet import whisper_weights
from latentsync.whisper.audio2feature import Audio2Feature, load_whisper_encoder

logger = logging.getLogger("latentsync")


class VideoValidator:
    """Writes `validation/step-00001000.mp4`, in the main process alone; nothing is measured."""

    name = "video"

    def __init__(self, config: Config, codec: LatentCodec, accelerator: Accelerator) -> None:
        data = config.data
        self.config, self.codec, self.accelerator = config, codec, accelerator
        self.video, self.audio = Path(data.val_video_path), Path(data.val_audio_path)
        self.folder = output_folder(data) / "validation"
        if accelerator.is_main_process:
            encoder = load_whisper_encoder(whisper_weights(config))
            self._encoder = Audio2Feature(encoder, tuple(data.audio_feat_length), data.audio_feat_limit).to(accelerator.device)
            self._detector = build_detector("auto", default_weights("s3fd"), default_weights("2dfan4"), accelerator.device)

    def __call__(self, model: nn.Module, step: int) -> dict[str, ValidationSum]:
        """Raises whatever the pipeline raises."""
        if not self.accelerator.is_main_process:
            return {}
        run = self.config.run
        pipeline = LipsyncPipeline(self.codec, self._encoder, model, self._detector, **pipeline_settings(self.config))
        pipeline.set_progress_bar_config(disable=True)
        options = LipsyncOptions(**asdict(run.sampling), seed=run.seed)
        target = self.folder / f"step-{step:08d}.mp4"
        self.folder.mkdir(parents=True, exist_ok=True)
        slice_size = self.codec.slice_size
        try:
            with torch.autocast(self.accelerator.device.type, enabled=False):  # the pipeline chooses each part's precision by itself
                pipeline(self.video, self.audio, target, options)
        finally:
            self.codec.slice_size = slice_size  # the pipeline makes it smaller when memory is short
        logger.info("Validation video: %s", target)
        return {}


def make_video_validator(config: Config, codec: LatentCodec, accelerator: Accelerator) -> VideoValidator | None:
    """The validator that a configuration asks for; None where it names no video and no sound.

    Raises ConfigError where a file is missing, before hours have been spent.
    """
    data = config.data
    if data.val_video_path is None or data.val_audio_path is None:
        logger.info("No validation video: data.val_video_path and data.val_audio_path are not both set")
        return None
    for name in ("val_video_path", "val_audio_path"):
        if not getattr(data, name).is_file():
            raise ConfigError(f"data.{name} is {getattr(data, name)}, which is not there: name another file, or null for no video.")
    if accelerator.distributed_type in ("FSDP", "DEEPSPEED", "MEGATRON_LM"):
        logger.warning("No validation video: the weights are shared out over the processes, and the pipeline needs them in one place.")
        return None
    return VideoValidator(config, codec, accelerator)
