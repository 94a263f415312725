"""Configuration in, everything a training needs out: the one place where trainings load and place things."""

import logging
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.utils import set_seed
from torch import nn

import latentsync
from latentsync.config import Config
from latentsync.data.catalog import Catalog, open_catalog
from latentsync.errors import ConfigError, InputError
from latentsync.training.checkpoint import CheckpointStore
from latentsync.training_config import CkptConfig, RunConfig, TrainingDataConfig
from latentsync.weights import CHECKPOINTS, WHISPER_BY_WIDTH, weights_path

logger = logging.getLogger(__name__)

ROOT = Path(latentsync.__file__).resolve().parents[1]
PATIENCE = timedelta(hours=2)  # processes wait for each other so long: one of them may be filling a cache
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def make_accelerator(run: RunConfig, device: str = "auto") -> Accelerator:
    """The processes and devices of a training, as `accelerate launch` made them, or this process alone.

    Args:
        device: "cpu" keeps everything off a GPU that is there.

    Raises:
        ConfigError: the device cannot compute in the precision that was asked for.
    """
    cpu = device == "cpu"
    cuda = torch.cuda.is_available() and not cpu
    precision = run.mixed_precision
    if precision == "auto":
        precision = ("bf16" if torch.cuda.is_bf16_supported() else "fp16") if cuda else "no"
    if precision == "fp16" and not cuda:
        raise ConfigError("run.mixed_precision fp16 needs a CUDA device: set run.mixed_precision=auto.")
    return Accelerator(
        mixed_precision=precision,
        gradient_accumulation_steps=run.gradient_accumulation_steps,
        step_scheduler_with_optimizer=False,
        cpu=cpu,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE), DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
    )


def half_precision(accelerator: Accelerator) -> torch.dtype:
    """What networks that are not trained compute in."""
    return HALF.get(accelerator.mixed_precision, torch.float32)


def seed_everything(run: RunConfig, accelerator: Accelerator) -> None:
    """Different chance on every process, the same at every start."""
    set_seed(run.seed + accelerator.process_index)


def output_folder(data: TrainingDataConfig) -> Path:
    """Where a training writes.

    Raises ConfigError where the configuration does not say.
    """
    if data.train_output_dir is None:
        raise ConfigError("data.train_output_dir is not set: name the folder for checkpoints, logs and charts.")
    return data.train_output_dir


def start_weights(ckpt: CkptConfig, data: TrainingDataConfig) -> Path | None:
    """The file that a new training starts from; None where there is none, or where a training goes on and needs it no more."""
    return None if CheckpointStore(output_folder(data), ckpt.keep_last).states() else ckpt.resume_ckpt_path


def cache_folder(data: TrainingDataConfig) -> Path:
    """Where things are kept that are computed once for each clip."""
    return data.cache_dir or output_folder(data) / "cache"


def open_catalogs(
    data: TrainingDataConfig, min_frames: int, accelerator: Accelerator, show_progress: bool, resolution: int = 0
) -> tuple[Catalog, Catalog | None]:
    """The clips to train on, and the held-out ones where there are any. The main process looks first, the others read its notes.

    Warns of clips that have fewer than `resolution` pixels a side.

    Raises:
        ConfigError: no clips are named.
        InputError: none of those named can be used, or a clip stands on both sides.
    """
    if data.train_data_dir is None and data.train_fileslist is None:
        raise ConfigError("No clips to train on are named: set data.train_data_dir to a folder of clips, or data.train_fileslist.")
    look = partial(open_catalog, min_frames=min_frames, cache_dir=cache_folder(data), show_progress=show_progress)
    with accelerator.main_process_first():
        train = look(data.train_data_dir, data.train_fileslist)
        _tell_of_small_clips("training", train, resolution)
        if data.val_data_dir is None and data.val_fileslist is None:
            logger.warning("No held-out clips are named (data.val_data_dir): nothing will show whether what is learnt holds for others.")
            return train, None
        held_out = look(data.val_data_dir, data.val_fileslist)
        _tell_of_small_clips("held-out", held_out, resolution)
    common = {clip.path for clip in train.clips} & {clip.path for clip in held_out.clips}
    if common:
        raise InputError(f"{len(common)} clips, such as {min(common)}, are both trained on and held out: take them out of one of the two.")
    return train, held_out


def _tell_of_small_clips(name: str, catalog: Catalog, resolution: int) -> None:
    sides = [clip.side for clip in catalog.clips if clip.side < resolution]
    if sides:
        logger.warning(
            "%d of %d %s clips are smaller than data.resolution %d, the smallest %d pixels a side, and are blown up: "
            "lower data.resolution, or leave them out.",
            *(len(sides), len(catalog.clips), name, resolution, min(sides)),
        )


def freeze(model: nn.Module, trainable: Sequence[str]) -> int:
    """Train only parameters whose name contains one of `trainable` (all, where it is empty); how many numbers that are.

    Raises ConfigError where a part names nothing.
    """
    for part in trainable:
        if not any(part in name for name, _ in model.named_parameters()):
            raise ConfigError(f"run.trainable_modules holds '{part}', which is in no parameter's name: see the names in the checkpoint.")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not trainable or any(part in name for part in trainable))
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def default_weights(name: str) -> Path:
    """Where a file of the weights table is, or where it belongs."""
    return weights_path(name, ROOT / CHECKPOINTS)


def whisper_weights(config: Config) -> Path:
    """The audio encoder's file or folder. Raises ConfigError where it is missing or none is known for the width of the audio tokens."""
    width = config.model.cross_attention_dim
    if config.weights.whisper is None and width not in WHISPER_BY_WIDTH:
        raise ConfigError(f"No published audio encoder is {width} wide (model.cross_attention_dim): name your own with weights.whisper.")
    path = config.weights.whisper or default_weights(WHISPER_BY_WIDTH[width])
    if not path.exists():
        raise ConfigError(f"The audio encoder {path} is missing: run `python -m scripts.download_weights`, or set weights.whisper.")
    return path


def clip_namer(catalog: Catalog) -> Callable[[int], str]:
    """Index of a clip -> its path, for messages."""
    return lambda index: str(catalog.clips[index].path)
