"""Configuration, weight files and device in; a ready pipeline out. The one place where inference loads and places things."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from latentsync.config import Config, load_config
from latentsync.constants import UNET_IN_CHANNELS, VAE_FACTOR
from latentsync.diffusion import is_fast_at_bfloat16
from latentsync.errors import ConfigError, InputError, WeightsError, first_line
from latentsync.faces.detector import build_detector
from latentsync.faces.mask import fixed_mask
from latentsync.models.unet_weights import load_unet
from latentsync.models.vae import load_tiny_vae, load_vae
from latentsync.pipelines.face_cache import FaceCache
from latentsync.pipelines.lipsync_pipeline import LipsyncPipeline
from latentsync.sync_meter import load_sync_meter
from latentsync.weights import (
    CHECKPOINTS,
    FLAT_UNET,
    VERSIONS,
    WEIGHTS,
    WHISPER_BY_WIDTH,
    find_weights,
    read_checkpoint,
    stated_version,
    tell_version,
    weights_path,
)
from latentsync.whisper.audio2feature import Audio2Feature, load_whisper_encoder

logger = logging.getLogger(__name__)

PathLike = Path | str | None

ROOT = Path(__file__).resolve().parents[2]
EMBEDDED = Path("assets", "embedded", "config.yaml")  # the model that comes with the project, relative to its root
SYNCNET = (ROOT / EMBEDDED.with_name("syncnet.yaml"), ROOT / EMBEDDED.with_name("syncnet.safetensors"))  # that reports measure with
CONFIGS = {"1.6": "stage2_512.yaml", "1.5": "stage2.yaml", "1.0": "v1.0.yaml"}  # of each published version, in configs/unet
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
VAE_SLICE_PIXELS = 16 * 256 * 256  # pixels that go through the autoencoder at once: 16 faces at 256, 4 at 512
HALF_PRECISION_SINCE = 7  # major CUDA capability from which half precision is fast


@dataclass(frozen=True)
class ModelFiles:
    """Where everything is loaded from."""

    config: Path
    unet: Path
    vae: Path
    whisper: Path
    face_boxes: Path  # the two files of the face-alignment detector, which need not be there
    face_landmarks: Path


def find_denoisers(root: Path = ROOT) -> dict[str, Path]:
    """Version -> file of each published denoiser that is there, newest first; `root` is the folder of the project."""
    places = {version: find_weights(f"unet-{version}", root / CHECKPOINTS) for version in VERSIONS}
    return {version: path for version, path in places.items() if path is not None}


def find_config(root: Path = ROOT) -> Path:
    """The configuration of the newest published version whose denoiser is there, or else of the embedded model; WeightsError if none is."""
    checkpoints = root / CHECKPOINTS
    for version in find_denoisers(root):
        return root / "configs" / "unet" / CONFIGS[version]
    if (root / EMBEDDED).is_file():
        logger.info(
            "No published checkpoint is in %s: using the small embedded model, which has seen rendered people and a few recorded ones. The "
            "published weights do this better; `python -m scripts.download_weights` fetches them.",
            checkpoints,
        )
        return root / EMBEDDED
    newest = WEIGHTS[f"unet-{VERSIONS[0]}"]
    raise WeightsError(
        f"No denoiser was found in {checkpoints}: put {newest.origin} at {checkpoints / newest.path} (./setup_env.sh tries to), "
        "or name a checkpoint with --inference_ckpt_path and its --unet_config_path."
    )


def read_config(config_path: PathLike = None, unet_path: PathLike = None, overrides: Sequence[str] = ()) -> tuple[Config, Path]:
    """The configuration that a job runs with, and the file it was read from.

    A denoiser without a configuration gets that of the published version which its folder or its names tell, or else of the newest.
    Raises ConfigError or WeightsError where it cannot be told or read.
    """
    if config_path is not None:
        path = Path(config_path)
    elif unet_path is not None:
        path = ROOT / "configs" / "unet" / CONFIGS[stated_version(Path(unet_path)) or tell_version(Path(unet_path))]
    else:
        path = find_config(ROOT)
    return load_config(path, overrides), path


def locate_models(
    config_path: PathLike = None,
    unet_path: PathLike = None,
    vae_path: PathLike = None,
    whisper_path: PathLike = None,
    overrides: Sequence[str] = (),
) -> tuple[Config, ModelFiles]:
    """Settle which files a configuration needs: an argument wins over the configuration, that over the default place.

    Raises ConfigError or WeightsError, which names all missing files at once.
    """
    chosen = config_path
    config, config_path = read_config(chosen, unet_path, overrides)
    unet, checkpoints = unet_path or _published_unet(config.weights.unet), ROOT / CHECKPOINTS
    if unet is None:
        raise ConfigError(f"{config_path} names no checkpoint (weights.unet): name one with --inference_ckpt_path.")
    files = ModelFiles(
        config=config_path,
        unet=Path(unet),
        vae=Path(vae_path or config.weights.vae or weights_path("vae", checkpoints).parent),
        whisper=Path(whisper_path or config.weights.whisper or weights_path(_whisper_name(config), checkpoints)),
        face_boxes=weights_path("s3fd", checkpoints),
        face_landmarks=weights_path("2dfan4", checkpoints),
    )
    missing = [str(path) for path in (files.unet, files.vae, files.whisper) if not path.exists()]
    if missing:
        raise WeightsError(
            f"Weights are missing: {', '.join(missing)}; run ./setup_env.sh or `python -m scripts.download_weights`, "
            "which says where each comes from."
        )
    fixed_mask(config.data.resolution, config.data.mask)  # refuses a picture that is no mask
    _say_version(files, config, assumed=chosen is None)
    return config, files


def _published_unet(named: Path | None) -> Path | None:
    """The denoiser that a configuration names; where that is a place of the table and empty, the file that is taken for it."""
    if named is None or named.exists():
        return named
    for version in VERSIONS:
        if named == (ROOT / CHECKPOINTS / WEIGHTS[f"unet-{version}"].path).resolve():
            flat = ROOT / CHECKPOINTS / FLAT_UNET  # its version is assumed, and a configuration that is named says it better
            return find_weights(f"unet-{version}", ROOT / CHECKPOINTS) or (flat if flat.is_file() else named)
    return named


def _say_version(files: ModelFiles, config: Config, assumed: bool) -> None:
    """Log what is assumed about the version of a denoiser, and warn where its folder names one of another picture size."""
    folder, stated = ROOT / "configs" / "unet", stated_version(files.unet)
    if stated is not None:
        size = load_config(folder / CONFIGS[stated]).data.resolution
        if size != config.data.resolution:
            logger.warning(
                "%s lies in the folder of version %s, whose faces have %d pixels, and %s asks for %d: use --unet_config_path %s.",
                *(files.unet, stated, size, files.config, config.data.resolution, folder / CONFIGS[stated]),
            )
    elif assumed and files.config == folder / CONFIGS[VERSIONS[0]]:
        step = read_checkpoint(files.unet).get("global_step")
        logger.info(
            "%s does not say which version it is%s: version %s is assumed, with faces of %d pixels. If it is version 1.5, add "
            "--unet_config_path %s.",
            *(files.unet, f" (saved at step {step})" if step else "", VERSIONS[0], config.data.resolution, folder / CONFIGS["1.5"]),
        )


def _whisper_name(config: Config) -> str:
    width = config.model.cross_attention_dim
    if width not in WHISPER_BY_WIDTH:
        widths = ", ".join(f"{key} ({name})" for key, name in WHISPER_BY_WIDTH.items())
        raise ConfigError(
            f"No published audio encoder is {width} wide (model.cross_attention_dim): name your own with weights.whisper, or use {widths}."
        )
    return WHISPER_BY_WIDTH[width]


def resolve_device(name: str = "auto") -> torch.device:
    """ "auto" takes CUDA, else Apple's MPS, else the CPU; other names as they are. Raises InputError where there is no such device."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, there in available.items() if there))
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"--device {name} is unknown: give auto, cuda, cuda:1, mps or cpu.") from error
    if not available.get(device.type, False) or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        raise InputError(f"--device {name} is not there on this machine: give auto or cpu.")
    return device


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """ "auto" takes what the device is fast at: float16 on GPUs, bfloat16 on processors with AMX or AVX512-BF16, else float32."""
    if name != "auto":
        return DTYPES[name]
    if device.type == "cuda":
        return torch.float16 if torch.cuda.get_device_capability(device)[0] >= HALF_PRECISION_SINCE else torch.float32
    if device.type == "cpu":
        return torch.bfloat16 if is_fast_at_bfloat16() else torch.float32
    return torch.float16


def pipeline_settings(config: Config) -> dict[str, Any]:
    """What `LipsyncPipeline` takes from a configuration."""
    own = ("sampling", "paste", "match_skin", "noise_scale", "use_reference")
    shared = {name: getattr(config.data, name) for name in ("resolution", "num_frames", "single_reference")}
    return shared | {"mask_name": config.data.mask} | {name: getattr(config.run, name) for name in own}


def build_pipeline(
    config_path: PathLike = None,
    unet_path: PathLike = None,
    vae_path: PathLike = None,
    whisper_path: PathLike = None,
    *,
    overrides: Sequence[str] = (),
    device: str = "auto",
    dtype: str = "auto",
    detector: str = "auto",
    tiny_vae: PathLike = None,
    cache_dir: PathLike = None,
    compile: bool = False,
) -> LipsyncPipeline:
    """A pipeline ready to be called.

    Args:
        config_path: YAML of the denoiser; by default that of `unet_path` as far as it can be told (see `read_config`), or else of the
            newest published version whose weights are there.
        unet_path, vae_path, whisper_path: weights, where they are not in their default places.
        overrides: dotted settings such as "data.num_frames=8".
        device: "auto", "cuda", "cuda:1", "mps" or "cpu".
        dtype: "auto", "fp16", "bf16" or "fp32", for the denoiser and the autoencoder. On CUDA, float32 products of matrices use
            TensorFloat-32 from then on in this process.
        detector: "auto", "face-alignment" or "mtcnn".
        tiny_vae: folder of an `AutoencoderTiny`, which then takes the place of the autoencoder.
        cache_dir: folder in which `FaceCache` keeps what was found in videos; None: nothing is kept.
        compile: compile denoiser and autoencoder, see `compile_networks`.

    Raises ConfigError, WeightsError or InputError.
    """
    config, files = locate_models(config_path, unet_path, vae_path, whisper_path, overrides)
    place, precision = resolve_device(device), resolve_dtype(dtype, resolve_device(device))
    if place.type == "cuda":
        torch.set_float32_matmul_precision("high")
    logger.info("Loading %s for %s, faces of %d pixels", files.unet, files.config, config.data.resolution)
    around, limit = tuple(config.data.audio_feat_length), config.data.audio_feat_limit
    audio_encoder = Audio2Feature(load_whisper_encoder(files.whisper), around, limit)
    if audio_encoder.width != config.model.cross_attention_dim:
        raise WeightsError(
            f"{files.whisper} gives audio tokens {audio_encoder.width} wide, but {files.config} wants {config.model.cross_attention_dim} "
            "(model.cross_attention_dim): use the Whisper file that the denoiser was trained with."
        )
    unet = load_unet(config.model, files.unet, dtype=precision)
    vae = load_vae(files.vae, dtype=precision) if tiny_vae is None else load_tiny_vae(tiny_vae, dtype=precision)
    vae.slice_size = max(1, VAE_SLICE_PIXELS // config.data.resolution**2)
    pipeline = LipsyncPipeline(
        vae.to(place),
        audio_encoder.to(place),
        unet.to(place),
        build_detector(detector, files.face_boxes, files.face_landmarks, place),
        **pipeline_settings(config),
        face_cache=None if cache_dir is None else FaceCache(Path(cache_dir)),
        sync_meter=load_sync_meter(*SYNCNET, place) if SYNCNET[1].is_file() else None,
    )
    if compile:
        compile_networks(pipeline)
    return pipeline


@torch.no_grad()
def compile_networks(pipeline: LipsyncPipeline) -> None:
    """Compile denoiser and autoencoder for whole clips (torch.compile, static shapes); clips of other lengths run as before.

    The denoiser is run once; where that fails, as without a C++ compiler, nothing is compiled and a line says so.
    """
    unet, vae = pipeline.unet, pipeline.vae.vae
    logger.info("Compiling the networks: this takes minutes")
    compile_forward(unet, lambda sample: sample.shape[2] == pipeline.num_frames)
    for part in (vae.encoder, vae.decoder):
        compile_forward(part, lambda sample: len(sample) == pipeline.vae.slice_size)
    side = pipeline.resolution // VAE_FACTOR
    sample = torch.zeros(1, UNET_IN_CHANNELS, pipeline.num_frames, side, side, device=unet.device, dtype=unet.dtype)
    windows = torch.zeros(pipeline.num_frames, 1, unet.config.cross_attention_dim, device=unet.device, dtype=unet.dtype)
    try:
        unet(sample, 1, windows)
    except RuntimeError as error:
        for module in (unet, vae.encoder, vae.decoder):
            del module.forward
        logger.warning("The networks cannot be compiled here (%s): going on without.", first_line(error))


def compile_forward(module: nn.Module, applies: Callable[[Tensor], bool]) -> None:
    """Let a network run compiled on inputs to which this applies."""
    plain, compiled = module.forward, torch.compile(module.forward, dynamic=False)
    module.forward = lambda sample, *rest: (compiled if applies(sample) else plain)(sample, *rest)
