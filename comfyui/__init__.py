"""Nodes for ComfyUI: load a model; lip sync an IMAGE batch to AUDIO. Link this folder into ComfyUI's custom_nodes (docs/programs.md)."""

import importlib.util
import sys
import tempfile
from collections.abc import Callable
from dataclasses import fields
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.io import wavfile

if importlib.util.find_spec("latentsync") is None:
    sys.path.append(str(Path(__file__).resolve().parents[1]))  # behind ComfyUI's own folders

from latentsync import LipsyncOptions, LipsyncPipeline, build_pipeline
from latentsync.app.models import find_models
from latentsync.errors import InputError
from latentsync.media.video_reader import VideoReader
from latentsync.media.video_writer import VideoWriter
from latentsync.pipelines.options import OPTION_TYPES

if TYPE_CHECKING:
    from latentsync.pipelines.lipsync_pipeline import ProgressCallback

PIPELINE = "LATENTSYNC_PIPELINE"  # the type of the wire between the two nodes
OPTIONS = ("quality", "face", "length", "keep_fps", "inference_steps", "guidance_scale", "seed")  # those of LipsyncOptions that are shown
DEFAULT = -1  # of a number: the choice of the preset or of the model
MOST_FPS_DENOMINATOR = 1001  # 30000/1001 and the like


class LoadLatentSync:
    """Loads the networks, once for all runs of a workflow."""

    CATEGORY, FUNCTION = "LatentSync", "load"
    RETURN_TYPES, RETURN_NAMES = (PIPELINE,), ("pipeline",)
    DESCRIPTION = "Loads the networks of LatentSync: published weights in checkpoints/, or the small embedded model."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The widgets of the node."""
        return {
            "required": {
                "model": ([choice.key for choice in find_models()],),
                "device": ("STRING", {"default": "auto", "tooltip": "auto, cuda, cuda:1, mps or cpu"}),
                "dtype": (["auto", "fp16", "bf16", "fp32"],),
            }
        }

    def load(self, model: str, device: str, dtype: str) -> tuple[LipsyncPipeline]:
        """Build the pipeline. Raises LatentSyncError with what is missing."""
        choice = next((choice for choice in find_models() if choice.key == model), None)
        if choice is None:
            raise InputError(f"There is no model {model!r} here: choose another one in the node.")
        pipeline = build_pipeline(choice.config, choice.unet, device=device, dtype=dtype)
        pipeline.set_progress_bar_config(disable=True)
        return (pipeline,)


class LatentSyncNode:
    """Gives the person in a batch of pictures other words."""

    CATEGORY, FUNCTION = "LatentSync", "sync"
    RETURN_TYPES, RETURN_NAMES = ("IMAGE", "AUDIO", "FLOAT"), ("images", "audio", "fps")
    DESCRIPTION = "Changes the mouth of a person in a batch of pictures so that it matches the sound."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs and widgets of the node."""
        fps = ("FLOAT", {"default": 25.0, "min": 1.0, "max": 240.0, "step": 0.001, "tooltip": "frames a second of the pictures"})
        inputs = {"pipeline": (PIPELINE,), "images": ("IMAGE",), "audio": ("AUDIO",), "fps": fps}
        return {"required": inputs, "optional": {name: widget(name) for name in OPTIONS}}

    def sync(
        self, pipeline: LipsyncPipeline, images: torch.Tensor, audio: dict[str, Any], fps: float, **chosen: Any
    ) -> tuple[torch.Tensor, dict[str, Any], float]:
        """Pictures float32 (b, h, w, 3) in [0, 1], their sound and their frame rate, of the result.

        Args:
            images: float32 (b, h, w, c) in [0, 1]; an alpha channel is dropped.
            audio: "waveform" float32 (1, c, n) in [-1, 1] and "sample_rate".
            chosen: options by name; -1 and "" stand for the default.
        """
        given = {name: value for name, value in chosen.items() if value not in (DEFAULT, "") or name == "seed"}
        options = LipsyncOptions(**given, lossless=True)
        rate, waveform = int(audio["sample_rate"]), audio["waveform"][0].float().cpu()  # c n
        with tempfile.TemporaryDirectory(prefix="latentsync-") as folder:
            video, sound, output = (Path(folder, name) for name in ("video.mkv", "sound.wav", "output.mkv"))
            write_pictures(video, images, Fraction(fps).limit_denominator(MOST_FPS_DENOMINATOR))
            wavfile.write(sound, rate, waveform.T.contiguous().numpy())
            result = pipeline(video, sound, output, options, comfy_progress())
            made = read_pictures(output, result.frames)
        length = round(result.frames / result.fps * rate)
        waveform = torch.nn.functional.pad(waveform[:, :length], (0, max(0, length - waveform.shape[1])))
        return made, {"waveform": waveform[None], "sample_rate": rate}, result.fps


def widget(name: str) -> tuple[Any, dict[str, Any]]:
    """An option of a job as ComfyUI describes a widget."""
    option = next(option for option in fields(LipsyncOptions) if option.name == name)
    default = DEFAULT if option.default is None else option.default
    more: dict[str, Any] = {"default": default, "tooltip": option.metadata["help"]}
    if option.metadata["choices"]:
        return list(option.metadata["choices"]), more
    if OPTION_TYPES[name] in (int, float):
        more |= {"min": DEFAULT, "max": 2**32 - 1 if name == "seed" else 999}
    return {bool: "BOOLEAN", int: "INT", float: "FLOAT", str: "STRING"}[OPTION_TYPES[name]], more


def write_pictures(path: Path, images: torch.Tensor, fps: Fraction) -> None:
    """Write pictures float32 (b, h, w, c) in [0, 1] as a video without loss but for rounding to 8 bits."""
    height, width = images.shape[1:3]
    with VideoWriter(path, width, height, fps, lossless=True) as writer:
        for image in images:
            writer.write((image[..., :3].float().cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy())


def read_pictures(path: Path, count: int) -> torch.Tensor:
    """The frames of a video as pictures float32 (b, h, w, 3) in [0, 1]."""
    reader = VideoReader(path, None)
    images = torch.empty(count, reader.height, reader.width, 3)
    for place, frame in enumerate(reader.frames(0, count)):
        images[place] = torch.from_numpy(frame.astype(np.float32) / 255)
    return images


def comfy_progress() -> "ProgressCallback | None":
    """What tells ComfyUI of progress, and stops where its user interrupts; None outside of it."""
    try:
        from comfy.model_management import throw_exception_if_processing_interrupted
        from comfy.utils import ProgressBar
    except ModuleNotFoundError:
        return None
    bar, check = ProgressBar(100), throw_exception_if_processing_interrupted
    shares: dict[str, Callable[[float], float]] = {"analyse": lambda share: 20 * share, "generate": lambda share: 20 + 80 * share}

    def progress(stage: str, done: int, total: int | None) -> None:
        check()
        if total:
            bar.update_absolute(int(shares[stage](min(1.0, done / total))))

    return progress


NODE_CLASS_MAPPINGS = {"LoadLatentSync": LoadLatentSync, "LatentSync": LatentSyncNode}
NODE_DISPLAY_NAME_MAPPINGS = {"LoadLatentSync": "LatentSync: load model", "LatentSync": "LatentSync: lip sync"}
