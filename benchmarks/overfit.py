"""Let the training command memorise a few clips, from nothing: the proof that every part fits every other and the losses agree.

    python -m benchmarks.overfit OUT_DIR VIDEO... [--seconds 3]
    ./train_unet.sh --unet_config_path OUT_DIR/noise.yaml
    ./train_unet.sh --unet_config_path OUT_DIR/all_losses.yaml

The first command cuts aligned faces out of the videos and writes the configurations of the others: the loss of the noise alone, which is
cheap, then all losses from there. Autoencoder and SyncNet are those of the embedded model, the audio encoder is Whisper tiny.en; the
network behind LPIPS has random weights (weights.vgg16=FILE names others). A network that saw one clip knows each frame by its upper half:
with other words on the same clip the old mouth comes back.
"""

import argparse
import shutil
from collections.abc import Iterable
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from omegaconf import OmegaConf

from latentsync.config import UNetConfig
from latentsync.constants import VIDEO_FPS
from latentsync.faces.alignment import warp_faces
from latentsync.faces.detector import build_detector
from latentsync.faces.plan import plan_spans
from latentsync.losses.lpips import empty_lpips
from latentsync.media.video_reader import VideoReader
from latentsync.media.video_writer import AudioTrack, VideoWriter

EMBEDDED = Path(__file__).resolve().parents[1] / "assets" / "embedded"
RESOLUTION, NUM_FRAMES = 128, 16  # of the embedded model
UNET = UNetConfig([32, 64, 128, 128], layers_per_block=1, norm_num_groups=32, cross_attention_dim=384)


class RecipeStage(NamedTuple):
    """What differs between the two trainings."""

    name: str  # of its folder
    steps: int
    validation_steps: int
    batch_size: int
    lr: float
    loss_weights: dict[str, float]
    start: Path | None = None  # weights, relative to OUT_DIR


NOISE = RecipeStage("noise", 700, 350, 2, 8e-4, {"recon": 1, "sync": 0, "lpips": 0, "trepa": 0})
FIRST = Path(NOISE.name) / "checkpoints" / f"checkpoint-{NOISE.steps:08d}.pt"
ALL_LOSSES = RecipeStage("all_losses", 300, 100, 1, 3e-4, {"recon": 1, "sync": 0.2, "lpips": 0.5, "trepa": 0}, FIRST)


def cut_faces(video: Path, frames: int, target: Path) -> None:
    """The aligned faces of a video's first frames as a clip with its sound."""
    source = VideoReader(video, Fraction(VIDEO_FPS))
    span = plan_spans(source.frames(0, frames), build_detector("mtcnn", Path(), Path()), RESOLUTION, VIDEO_FPS).spans[0]
    if span.start:
        raise SystemExit(f"{video} does not begin with a face: give another one")
    faces = warp_faces(list(source.frames(0, span.stop)), torch.from_numpy(span.matrices), RESOLUTION)
    write(faces.numpy(), video, target)


def write(frames: Iterable[np.ndarray], sound: Path, target: Path) -> None:
    """Pictures as a video with the beginning of another video's sound."""
    frames = list(frames)
    height, width = frames[0].shape[:2]
    with VideoWriter(target, width, height, VIDEO_FPS, audio=AudioTrack(sound, len(frames) / VIDEO_FPS), crf=8) as sink:
        for frame in frames:
            sink.write(frame)


def write_random_vgg16(path: Path) -> None:
    """Random weights under the names of torchvision's file, at the scale that keeps activations as large as they are."""
    weights = {key: torch.zeros(value.shape) for key, value in empty_lpips().net.state_dict().items()}
    for value in weights.values():
        if value.dim() > 1:
            torch.nn.init.kaiming_normal_(value)
    torch.save({f"features.{key.partition('.')[2]}": value for key, value in weights.items()}, path)


def recipe(stage: RecipeStage) -> dict[str, Any]:
    """What the training command reads."""
    return {
        "data": {
            **{"resolution": RESOLUTION, "num_frames": NUM_FRAMES, "syncnet_config_path": str(EMBEDDED / "syncnet.yaml")},
            **{"train_data_dir": "clips", "val_data_dir": "same clips", "train_output_dir": stage.name},
            **{"batch_size": stage.batch_size, "num_workers": 0, "cache_faces": True, "cache_latents": True},
            **{"val_video_path": "video.mp4", "val_audio_path": "video.mp4"},
        },
        "model": asdict(UNET),
        "weights": {
            **{"vae": str(EMBEDDED / "vae"), "whisper": str(EMBEDDED / "whisper_tiny_en.pt")},
            **{"syncnet": str(EMBEDDED / "syncnet.safetensors"), "vgg16": "vgg16.pth"},
        },
        "run": {
            **{"max_train_steps": stage.steps, "validation_steps": stage.validation_steps, "num_val_clips": 12, "ema_decay": 0.99},
            **{"loss_weights": stage.loss_weights, "guidance_scale": 1.0},
            **{"enable_gradient_checkpointing": False, "vae_slice_size": 0},  # the clips are small
        },
        "optimizer": {"lr": stage.lr, "lr_scheduler": "cosine", "lr_warmup_steps": 30},
        "ckpt": {"save_ckpt_steps": 100, **({"resume_ckpt_path": str(stage.start)} if stage.start else {})},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Prepare a training that memorises a handful of clips.")
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("videos", type=Path, nargs="+", help="videos of one person each; the first is the validation video, too")
    parser.add_argument("--seconds", type=float, default=3, help="of each video (default: %(default)s)")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    clips = arguments.out_dir / "clips"
    clips.mkdir(parents=True, exist_ok=True)
    length, first = round(arguments.seconds * VIDEO_FPS), arguments.videos[0]
    for number, video in enumerate(arguments.videos):
        cut_faces(video, length, clips / f"{number}_{video.stem}.mp4")
    shutil.copytree(clips, arguments.out_dir / "same clips", dirs_exist_ok=True)  # the losses on them with the same noise every time
    write(VideoReader(first, Fraction(VIDEO_FPS)).frames(0, length), first, arguments.out_dir / "video.mp4")
    write_random_vgg16(arguments.out_dir / "vgg16.pth")
    for stage in (NOISE, ALL_LOSSES):
        OmegaConf.save(OmegaConf.create(recipe(stage)), arguments.out_dir / f"{stage.name}.yaml")


if __name__ == "__main__":
    main()
