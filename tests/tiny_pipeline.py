"""The whole pipeline at the sizes of the reference case: real classes, seeded weights, a detector that knows where the face is."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from golden_recipe import GOLDEN, load_case, seeded_state_dict

from latentsync.config import UNetConfig
from latentsync.faces.detector import Face
from latentsync.media.video_reader import source_index
from latentsync.models.unet import UNet3DConditionModel
from latentsync.models.vae import LatentCodec
from latentsync.pipelines.layers import Line
from latentsync.pipelines.lipsync_pipeline import LipsyncPipeline
from latentsync.pipelines.options import LipsyncOptions
from latentsync.whisper.audio2feature import Audio2Feature, load_whisper_encoder

CASE, NUMBERS = load_case("e2e_v16")
SHAPES = json.loads((GOLDEN / "shapes" / "e2e_v16.json").read_text())
SIZES = CASE["config"]["unet"]


class KnownFaces:
    """A detector for pictures whose anchors are known: one face each, in order of the calls."""

    name, weights, smoothing, long_side = "known", "", "none", None

    def __init__(self, anchors: list) -> None:
        self.anchors = iter(anchors)

    def detect(self, picture: np.ndarray) -> list[Face]:
        anchors = np.asarray(next(self.anchors), dtype=np.float32)
        return [Face(np.array([40, 20, 120, 110], np.float32), 1.0, anchors)]


def seeded_unet() -> UNet3DConditionModel:
    sizes = {key: SIZES[key] for key in ("block_out_channels", "layers_per_block", "norm_num_groups", "cross_attention_dim")}
    unet = UNet3DConditionModel(UNetConfig(**sizes))
    unet.load_state_dict(seeded_state_dict(unet.state_dict(), CASE["seed"]["unet weights"]))
    return unet.eval()


def seeded_codec() -> LatentCodec:
    vae = AutoencoderKL(**CASE["config"]["vae"])
    vae.load_state_dict(seeded_state_dict(vae.state_dict(), CASE["seed"]["vae weights"]))
    return LatentCodec(vae.eval())


def reference_pipeline(anchors: list | None = None) -> LipsyncPipeline:
    encoder = Audio2Feature(load_whisper_encoder(GOLDEN / "whisper_reduced.pt"))
    detector = KnownFaces(CASE["inputs"]["anchors (x,y) per source frame"] if anchors is None else anchors)
    pipeline = LipsyncPipeline(seeded_codec(), encoder, seeded_unet(), detector, resolution=CASE["config"]["resolution"], num_frames=16)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def reference_frames() -> list[np.ndarray]:
    y, x = np.mgrid[0:120, 0:160]
    pictures = []
    for k in range(12):
        blue = ((x // 8 + y // 8) % 2) * 100 + (x + 2 * y + 5 * k) % 120
        pictures.append(np.stack([x * 255 // 159, y * 255 // 119, blue], axis=-1).astype(np.uint8))
    return pictures


def silence_unet(unet: UNet3DConditionModel) -> None:
    """Make a denoiser predict zero."""
    torch.nn.init.zeros_(unet.conv_out.weight)
    torch.nn.init.zeros_(unet.conv_out.bias)


class MemoryReader:
    """Pictures in the place of a `VideoReader`."""

    path = Path(__file__)  # a file that exists, for its checksum
    fps, losses, problem, met_errors = Fraction(25), (), None, False

    def __init__(self, pictures: list[np.ndarray]) -> None:
        self._pictures = pictures
        self.height, self.width = pictures[0].shape[:2]
        self.expected_frames, self.frame_bytes = len(pictures), pictures[0].nbytes

    def frames(self, start: int, stop: int | None) -> list[np.ndarray]:
        return self._pictures[start:stop]

    def ping_pong(self, count: int, total_frames: int, first: int = 0) -> list[np.ndarray]:
        return [self._pictures[source_index(k, total_frames)] for k in range(first, count)]

    def damaged_runs(self, stop: int) -> list[tuple[int, int]]:
        return []


class MemoryWriter(list):
    path, write = "result.mp4", list.append
    frames_written = property(len)

    def __call__(self, total: int) -> "MemoryWriter":
        return self

    def __enter__(self) -> "MemoryWriter":
        return self

    def __exit__(self, *_: object) -> None:
        pass


def run(pipeline: LipsyncPipeline, speech: np.ndarray, options: LipsyncOptions, length: int = CASE["shapes"]["video_out"][0]) -> np.ndarray:
    """The frames (t h w 3) that a pipeline makes of the pictures of the case."""
    writer = MemoryWriter()
    line = Line(Path("memory.wav"), speech, options)
    pipeline.run(MemoryReader(reference_frames()), [line], writer, length, options)
    return np.stack(writer)
