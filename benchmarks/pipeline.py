"""How fast everything but the networks is, and whether memory grows with length.

    python -m benchmarks.pipeline speed VIDEO AUDIO [--size 1280x720]
    python -m benchmarks.pipeline memory VIDEO AUDIO [--size 640x360] [--seconds 10 300]
    python -m benchmarks.pipeline whole VIDEO AUDIO --config DIR/config.yaml [--batch_clips 1 2 4 8] [--device cuda] [--dtype fp16]

VIDEO and AUDIO are looped and scaled to what is wanted. `speed` replaces the networks by nothing (the face goes back as it came) and
tells frames a second of both passes, analyse and generate, and what each stage took. `memory` runs one job with a tiny network in
a process of its own for each length and tells its peak memory. `whole` runs the networks of a configuration at their full size.
"""

import argparse
import resource
import subprocess
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from benchmarks.write_random_checkpoint import CONFIG, write_checkpoint
from latentsync.faces.mask import to_pixels
from latentsync.pipelines.build import build_pipeline
from latentsync.pipelines.options import LipsyncOptions


def looped(video: Path, audio: Path, folder: Path, size: str, seconds: float) -> tuple[Path, Path]:
    """The inputs at a size and a length."""
    width, height = size.split("x")
    picture, sound = folder / f"talk_{seconds:g}.mp4", folder / f"words_{seconds:g}.wav"
    scale = f"scale={width}:{height}:force_original_aspect_ratio=increase,crop={width}:{height},fps=25"
    quiet = ["ffmpeg", "-v", "error", "-y", "-stream_loop", "-1"]
    encode = ["-t", str(seconds), "-an", "-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-pix_fmt", "yuv420p"]
    subprocess.run([*quiet, "-i", f"file:{video}", "-vf", scale, *encode, str(picture)], check=True)
    subprocess.run([*quiet, "-i", f"file:{audio}", "-t", str(seconds), "-ar", "16000", "-ac", "1", str(sound)], check=True)
    return picture, sound


def models(folder: Path, resolution: int) -> Path:
    """A tiny network with random weights; its configuration."""
    write_checkpoint(folder, tiny=True)
    (folder / "config.yaml").write_text(CONFIG.replace("128", str(resolution)))
    return folder / "config.yaml"


def speed(arguments: argparse.Namespace, folder: Path) -> None:
    """Frames a second of both passes without networks."""
    video, audio = looped(arguments.video, arguments.audio, folder, arguments.size or "1280x720", arguments.seconds[0])
    pipeline = build_pipeline(models(folder, 256), device=arguments.device)
    pipeline.set_progress_bar_config(disable=True)
    # in place of the networks: the faces as they came
    pipeline.encode_faces = lambda clips, *_: torch.stack([clip.faces for clip in clips])
    pipeline.denoise = lambda noise, faces, *_: faces
    pipeline.decode = to_pixels
    for attempt in range(arguments.rounds):
        result = pipeline(video, audio, folder / f"result_{attempt}.mp4", LipsyncOptions())
        took = result.seconds
        print(f"{result.width}x{result.height}, {result.frames} frames, {result.generated} with a face, {torch.get_num_threads()} threads")
        rates = result.source_frames / took["analyse"], result.frames / took["generate"]
        print("analyse: {:.1f} frames a second; generate: {:.1f} frames a second".format(*rates))
        print("ms a frame: " + ", ".join(f"{name} {1000 * seconds / result.frames:.1f}" for name, seconds in took.items()), flush=True)


def whole(arguments: argparse.Namespace, folder: Path) -> None:
    """Frames a second from file to file with the networks of a configuration, for each size of batch."""
    video, audio = looped(arguments.video, arguments.audio, folder, arguments.size or "1280x720", arguments.seconds[0])
    pipeline = build_pipeline(arguments.config, device=arguments.device, dtype=arguments.dtype)
    pipeline.set_progress_bar_config(disable=True)
    for count in arguments.batch_clips:
        how = {"inference_steps": arguments.steps, "guidance_scale": arguments.guidance_scale, "batch_clips": count}
        result = pipeline(video, audio, folder / "result.mp4", LipsyncOptions(**how, overwrite=True))
        took, peak = result.seconds, result.peak_device_bytes
        parts = {name: 100 * seconds / took["total"] for name, seconds in took.items() if name not in ("total", "generate")}
        shares = ", ".join(f"{name} {share:.0f} %" for name, share in parts.items())
        held = f"{peak / 1e9:.2f} GB" if peak else "not measured"
        print(f"batch_clips {count}: {result.frames / took['total']:.2f} frames a second, peak device memory {held}; {shares}", flush=True)


def memory(arguments: argparse.Namespace, folder: Path) -> None:
    """Peak memory of the command for each length."""
    config, peaks = models(folder, 64), []
    for seconds in arguments.seconds:
        paths = looped(arguments.video, arguments.audio, folder, arguments.size or "640x360", seconds)
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # a process of its own, so that its peak is its own
            peaks.append(pool.submit(one, *paths, folder / f"result_{seconds:g}.mp4", config).result())
    print(f"ratio of the last to the first: {peaks[-1] / peaks[0]:.3f}")


def one(video: Path, audio: Path, output: Path, config: Path) -> float:
    """One job, and how much memory its process took at most, MB."""
    pipeline = build_pipeline(config, device="cpu")
    pipeline.set_progress_bar_config(disable=True)
    result = pipeline(video, audio, output, LipsyncOptions(inference_steps=1, guidance_scale=1))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    shown = f"{result.width}x{result.height}, {result.frames} frames in {result.seconds['total']:.0f} s"
    print(f"{shown}; peak memory, MB: {peak:.0f}", flush=True)
    return peak


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the pipeline around the networks.")
    parser.add_argument("what", choices=("speed", "memory", "whole"))
    parser.add_argument("video", type=Path)
    parser.add_argument("audio", type=Path)
    parser.add_argument("--size", help="WIDTHxHEIGHT (default: 1280x720 for speed, 640x360 for memory)")
    parser.add_argument("--seconds", type=float, nargs="+", default=[10, 300])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--config", type=Path, help="for `whole`: a configuration that names its weights")
    parser.add_argument("--batch_clips", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance_scale", type=float, default=1.5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        {"speed": speed, "memory": memory, "whole": whole}[arguments.what](arguments, Path(folder))


if __name__ == "__main__":
    main()
