"""The model whose videos are measured: what it is made of, and its videos, made when they are asked for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eval.runs.generated_videos import GeneratedVideos, checksums
from latentsync.config import Config
from latentsync.faces.build import build_detector
from latentsync.faces.detector import FaceDetector
from latentsync.pipelines.build import EMBEDDED, ModelFiles, build_pipeline, locate_models, resolve_device
from latentsync.pipelines.lipsync_pipeline import LipsyncPipeline
from latentsync.pipelines.options import LipsyncOptions


@dataclass(frozen=True)
class ModelUnderTest:
    """A model, found but not loaded.

    Attributes:
        config, files: see `latentsync.pipelines.build.locate_models`.
        overrides: settings that win over its configuration.
        detector, device, dtype: see `latentsync.pipelines.build.build_pipeline`.
        options: of every job, completed by the model's own.
    """

    config: Config
    files: ModelFiles
    overrides: tuple[str, ...]
    detector: str
    device: str
    dtype: str
    options: LipsyncOptions

    @property
    def weights(self) -> dict[str, str]:
        """The checksums of its files, with that of a picture as mask."""
        mask = Path(self.config.data.mask)
        files = {"unet": self.files.unet, "vae": self.files.vae, "whisper": self.files.whisper}
        return checksums({**files, "mask": mask} if mask.is_absolute() else files)

    @property
    def is_embedded(self) -> bool:
        """Whether it is the small model that comes with the project."""
        return self.files.config.parts[-len(EMBEDDED.parts) :] == EMBEDDED.parts

    def settings(self) -> dict[str, Any]:
        """What decides, beside weights and inputs, how a video turns out."""
        data, options = self.config.data, self.options
        return {
            "inference_steps": options.inference_steps,
            "guidance_scale": options.guidance_scale,
            "seed": options.seed,
            "face": options.face,
            "length": options.length,
            "batch_clips": options.batch_clips,
            "detector": self.detector,
            "dtype": self.dtype,
            "resolution": data.resolution,
            "num_frames": data.num_frames,
            "mask": data.mask,
            "audio_feat_length": list(data.audio_feat_length),
        }

    def build(self) -> LipsyncPipeline:
        """Load it. Raises ConfigError, WeightsError, InputError."""
        pipeline = build_pipeline(
            *(self.files.config, self.files.unet, self.files.vae, self.files.whisper),
            overrides=self.overrides,
            device=self.device,
            dtype=self.dtype,
            detector=self.detector,
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def videos(self, folder: Path) -> GeneratedVideos:
        """Its videos, kept in a folder."""
        return GeneratedVideos(folder, {"weights": self.weights, "settings": self.settings()}, self.build, self.options)

    def face_detector(self) -> FaceDetector:
        """The one it finds faces with. Raises WeightsError."""
        return build_detector(self.detector, self.files.face_boxes, self.files.face_landmarks, resolve_device(self.device))


def find_model(
    named: Sequence[Path | None], overrides: Sequence[str], detector: str, device: str, dtype: str, options: LipsyncOptions
) -> ModelUnderTest:
    """The model of four files (configuration, denoiser, autoencoder, audio encoder), each None for the default of inference.

    Raises ConfigError, WeightsError, InputError.
    """
    resolve_device(device)
    config, files = locate_models(*named, overrides=overrides)
    completed = options.completed(config.run.inference_steps, config.run.guidance_scale)
    return ModelUnderTest(config, files, tuple(overrides), detector, device, dtype, replace(completed, overwrite=True))
