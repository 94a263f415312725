"""What each lever of speed costs in quality: settings of the sampling loop on the same clips, against 50 steps of DDIM in float32.

    python -m benchmarks.quality_of_speed PAIRS.csv --output_dir OUT [--seconds 3]

PAIRS.csv has the columns video_path and audio_path, relative to it; a sound that is a video shows how its own lips move. Faces, sound and
the autoencoder's posteriors are computed once. For each setting: the peak signal-to-noise ratio and the structural similarity of the
mouth box against the reference; offset and confidence of the embedded SyncNet; r, the correlation of the lips' opening with that of the
sound's own video, by FaceMesh; processor seconds a clip.
All but the reference run in the precision that --dtype auto takes. Writes results.md and results.png.
"""

import argparse
import csv
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import matplotlib
import numpy as np
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from eval.metrics.lips import correlation, find_mesh, lip_shapes
from latentsync.config import Sampling
from latentsync.constants import AUDIO_SAMPLE_RATE, VAE_FACTOR, VIDEO_FPS
from latentsync.diffusion import Conditions, denoise, shared_noise
from latentsync.faces.alignment import warp_faces
from latentsync.faces.mask import to_pixels
from latentsync.faces.plan import plan_spans
from latentsync.media.audio import AudioSamples
from latentsync.media.video_reader import VideoReader
from latentsync.mel import log_mel
from latentsync.pipelines.build import ROOT, build_pipeline, resolve_dtype
from latentsync.pipelines.lipsync_pipeline import LipsyncPipeline
from latentsync.pipelines.options import QUALITIES, LipsyncOptions
from latentsync.pipelines.timeline import SpokenLine, clips, pieces
from latentsync.sync_meter import compare, load_sync_meter
from latentsync.third_party.face_mesh import FaceMesh, load_face_mesh

SEED, STEPS_OF_REFERENCE = 1247, 50
MOUTH = (slice(0.5, 0.875), slice(0.25, 0.75))  # rows and columns of the aligned face, as shares
SETTINGS: dict[str, Sampling] = {  # each lever alone and together; the presets are added
    "ddim 20, cache 3": Sampling(cache_interval=3),
    "dpm++ 8": Sampling(8, sampler="dpm++"),
    "dpm++ 6": Sampling(6, sampler="dpm++"),
    "unipc 6": Sampling(6, sampler="unipc"),
    "dpm++ 4": Sampling(4, sampler="dpm++"),
    "dpm++ 3": Sampling(3, sampler="dpm++"),
    "dpm++ 8, cache 2": Sampling(8, sampler="dpm++", cache_interval=2),
    "dpm++ 8, cache 2, branch 1": Sampling(8, sampler="dpm++", cache_interval=2, cache_branch=1),
    "dpm++ 6, guidance from 0.3": Sampling(6, sampler="dpm++", guidance_start=0.3),
    "dpm++ 6, guidance to 0.5": Sampling(6, sampler="dpm++", guidance_stop=0.5),
    "dpm++ 6, no guidance": Sampling(6, sampler="dpm++", guidance_stop=0.0),
}


@dataclass
class PreparedClip:
    """All that does not depend on the setting."""

    conditions: Conditions
    windows: Tensor  # 1 f n d
    noise: Tensor  # 1 4 1 h w
    pixels: Tensor  # f 3 R R


@dataclass
class PreparedVideo:
    """A video with the sound it is given."""

    clips: list[PreparedClip]
    mel: Tensor  # 80 t, of the sound
    opening: np.ndarray | None  # of the lips in the sound's own video, a number a frame; None where it has none


def lip_opening(mesh: FaceMesh, faces: np.ndarray) -> np.ndarray:
    """The opening of lips of aligned faces uint8 [f R R 3] over the distance of the eyes: [f]."""
    return lip_shapes(find_mesh(mesh, torch.from_numpy(faces))).opening


def aligned(pipeline: LipsyncPipeline, reader: VideoReader, frames: int) -> tuple[np.ndarray, object]:
    """Aligned faces of the first frames of a video, and the plan."""
    plan = plan_spans(reader.frames(0, frames), pipeline.face_detector, pipeline.resolution, float(reader.fps))
    span = plan.spans[0]
    pictures = list(reader.frames(span.start, span.stop))
    return warp_faces(pictures, span.matrices, pipeline.resolution, torch.device("cpu")).numpy(), plan


@torch.no_grad()
def prepare(pipeline: LipsyncPipeline, video: Path, sound: Path, frames: int, mesh: FaceMesh) -> PreparedVideo:
    """Find and encode faces and sound."""
    reader = VideoReader(video, Fraction(VIDEO_FPS))
    _, plan = aligned(pipeline, reader, frames)
    random = torch.Generator().manual_seed(SEED)
    noise, prepared = pipeline.noise_scale * shared_noise(pipeline.resolution // VAE_FACTOR, random), []
    with AudioSamples(sound, AUDIO_SAMPLE_RATE) as samples, closing(reader.ping_pong(frames, plan.num_frames)) as stream:
        windows = pipeline.audio_encoder.windows(samples, reader.fps)
        voice, cut = SpokenLine(windows, 0, random, noise), pieces(plan, frames, pipeline.num_frames)
        for clip in clips(stream, plan, cut, pipeline.resolution // VAE_FACTOR, lambda _: voice):
            if clip.matrices is not None and clip.stop == len(prepared) * pipeline.num_frames + len(clip.frames):
                clip.faces = warp_faces(clip.frames, clip.matrices, pipeline.resolution, torch.device("cpu"))
                clip.reference, audio = clip.faces[len(clip.faces) // 2], windows.frames(clip.start, clip.stop)[None]
                prepared.append(PreparedClip(pipeline.encode_faces([clip]), audio, noise, to_pixels(clip.faces)))
        mel = log_mel(samples[0 : frames * AUDIO_SAMPLE_RATE // VIDEO_FPS]).float()
    own = sound.suffix in (".mp4", ".mpg", ".mkv", ".mov")
    opening = lip_opening(mesh, aligned(pipeline, VideoReader(sound, Fraction(VIDEO_FPS)), frames)[0]) if own else None
    return PreparedVideo(prepared, mel, opening)


@torch.no_grad()
def generate(pipeline: LipsyncPipeline, video: PreparedVideo, sampling: Sampling) -> np.ndarray:
    """Aligned faces uint8 [f R R 3]."""
    faces = []
    for clip in video.clips:
        start = clip.noise.expand_as(clip.conditions.masked)
        latents = denoise(pipeline.unet, start, clip.conditions, clip.windows, sampling, dtype=pipeline.unet.dtype)
        faces.append(pipeline.blend(pipeline.decode(latents)[0], clip.pixels))
    pixels = torch.cat(faces).clamp(-1, 1)
    return ((pixels + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def mouths(faces: np.ndarray) -> np.ndarray:
    """The boxes of mouths of aligned faces [f R R 3]."""
    rows, columns = (slice(*(round(share * faces.shape[1]) for share in (part.start, part.stop))) for part in MOUTH)
    return faces[:, rows, columns]


def measured(videos: Sequence[PreparedVideo], made: Sequence[np.ndarray], reference: Sequence[np.ndarray], mesh: FaceMesh) -> list[float]:
    """Mean PSNR, least PSNR, SSIM, confidence, absolute offset, r."""
    rows, meter = [], load_sync_meter(ROOT / "assets" / "embedded" / "syncnet.yaml", ROOT / "assets" / "embedded" / "syncnet.safetensors")
    for video, faces, best in zip(videos, made, reference, strict=True):
        ours, theirs = mouths(faces).astype(float), mouths(best).astype(float)
        psnr = 10 * np.log10(255**2 / max(((ours - theirs) ** 2).mean(), 1e-6))
        ssim = np.mean([structural_similarity(a, b, channel_axis=2, data_range=255) for a, b in zip(ours, theirs, strict=True)])
        sync = compare(meter.embed_faces(torch.from_numpy(faces)), meter.embed_audio(video.mel))
        length = 0 if video.opening is None else min(len(faces), len(video.opening))
        r = correlation(lip_opening(mesh, faces)[:length], video.opening[:length]) if length else None
        rows.append([psnr, psnr, ssim, sync.confidence, abs(sync.offset), np.nan if r is None else r])
    table = np.array(rows)
    means = np.nanmean(table, axis=0) if np.isfinite(table[:, 5]).any() else np.append(table[:, :5].mean(axis=0), np.nan)
    means[1] = table[:, 1].min()
    return means.tolist()


def draw(results: dict[str, list[float]], path: Path) -> None:
    """Speed against quality, a point a setting."""
    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 6))
    reference = results["reference"][-1]  # seconds
    for name, row in results.items():
        if name != "reference":
            axes.scatter(reference / row[-1], row[0], color="tab:red" if name in QUALITIES else "tab:blue")
            axes.annotate(name, (reference / row[-1], row[0]), fontsize=8, xytext=(4, 3), textcoords="offset points")
    axes.set(xscale="log", xlabel="speed of denoising, 50 steps of DDIM in float32 = 1", ylabel="PSNR of the mouth box against it, dB")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what settings of the sampling loop cost in quality.")
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--config", type=Path, help="the denoiser (default: as inference.sh)")
    arguments = parser.parse_args()
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    mesh = load_face_mesh()
    pipeline = build_pipeline(arguments.config, device="cpu", dtype="fp32")
    with arguments.pairs.open(newline="", encoding="utf-8") as file:
        pairs = [[arguments.pairs.parent / row[name] for name in ("video_path", "audio_path")] for row in csv.DictReader(file)]
    videos = [prepare(pipeline, *pair, round(arguments.seconds * VIDEO_FPS), mesh) for pair in pairs]
    count, scale = sum(len(video.clips) for video in videos), pipeline.sampling.guidance_scale
    presets = {name: LipsyncOptions(quality=name).completed(Sampling(20, scale)).sampling for name in QUALITIES}
    settings = {"reference": Sampling(STEPS_OF_REFERENCE), "standard in float32": presets["standard"], **SETTINGS, **presets}
    results: dict[str, list[float]] = {}
    reference: list[np.ndarray] = []
    automatic = resolve_dtype("auto", pipeline.unet.device)
    for name, sampling in settings.items():
        precision = torch.float32 if name == "reference" or name.endswith("float32") else automatic
        pipeline.unet.to(precision), pipeline.vae.to(precision)
        sampling = Sampling(**{**vars(sampling), "guidance_scale": scale})
        start = time.process_time()
        made = [generate(pipeline, video, sampling) for video in videos]
        seconds = (time.process_time() - start) / count
        reference = reference or made
        results[name] = [*measured(videos, made, reference, mesh), seconds]
        print(f"{name:30s} " + " ".join(f"{value:8.3f}" for value in results[name]), flush=True)
    header = "| setting | mouth PSNR, dB | least | SSIM | confidence | offset | r of lip opening | processor seconds a clip |"
    lines = [header, "|---|" + "---|" * 7]
    lines += [f"| {name} | " + " | ".join(f"{value:.3g}" for value in row) + " |" for name, row in results.items()]
    (arguments.output_dir / "results.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    draw(results, arguments.output_dir / "results.png")


if __name__ == "__main__":
    main()
