"""Run the inference command over clips that are hard to handle, and over misuse, and print what each gave.

    python -m benchmarks.hard_inputs CLIPS_DIR OUT_DIR --video VIDEO --audio SOUND

CLIPS_DIR holds any videos and sounds; every video is paired with one sound and keeps its length, every sound with one video. A tiny
network with random weights stands in for a real one: it is the pipeline that is put to the test. Each line: exit code, frames and seconds
of the result, and what the user read.
"""

import argparse
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from benchmarks.write_random_checkpoint import write_checkpoint
from latentsync.media.files import AUDIO_EXTENSIONS, VIDEO_EXTENSIONS, walk_media
from latentsync.media.probe import probe
from latentsync.media.video_reader import VideoReader

ROOT = Path(__file__).resolve().parents[1]
CONFIG = """
data: {resolution: 128}
model: {block_out_channels: [32, 32, 32, 32], layers_per_block: 1, cross_attention_dim: 64}
weights: {unet: latentsync_unet.pt, vae: sd-vae-ft-mse, whisper: whisper/tiny.pt}
"""
PATIENCE = 900  # seconds before a run counts as hanging


@dataclass(frozen=True)
class InputOutcome:
    """What one run of the command gave."""

    name: str
    code: int
    result: str
    messages: str

    def __str__(self) -> str:
        return f"| {self.name} | {self.code} | {self.result} | {self.messages} |"


def command(video: Path, audio: Path, output: Path, config: Path, *more: str) -> list[str]:
    """The arguments of one run, with one step of denoising and without progress bars."""
    paths = [f"--video_path={video}", f"--audio_path={audio}", f"--video_out_path={output}", f"--unet_config_path={config}"]
    return [sys.executable, "-m", "scripts.inference", *paths, "--inference_steps=1", "--guidance_scale=1", "--quiet", *more]


def run(name: str, arguments: list[str], output: Path) -> InputOutcome:
    """Run to the end; what came out."""
    try:
        done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return InputOutcome(name, -1, "no file", f"HANGS for {PATIENCE} s")
    return outcome_of(name, done.returncode, done.stderr + done.stdout, output)


def outcome_of(name: str, code: int, text: str, output: Path) -> InputOutcome:
    """The outcome of a run: the file it left, and its messages; a traceback or left-over file is written in capitals."""
    messages = " / ".join(line.replace(f"{output.parent}/", "") for line in text.splitlines() if line.strip())
    result = "no file"
    if output.is_file():
        frames, info = sum(1 for _ in VideoReader(output, None).frames()), probe(output)
        result = f"{info.video.width}x{info.video.height}, {frames} frames, sound {info.audio.duration or info.duration:.2f} s"
    folder = output.parent
    debris = [path.name for path in folder.iterdir() if path.name.startswith(".")] if folder.is_dir() else []
    trouble = (" TRACEBACK" if "Traceback" in text else "") + (f" LEFT BEHIND {debris}" if debris else "")
    return InputOutcome(name, code, result, messages + trouble)


def clips_of(folder: Path, config: Path, out_dir: Path, video: Path, audio: Path) -> Iterator[InputOutcome]:
    """Every file of the folder: videos with the sound given, sounds with the video given; inputs must come out unchanged."""
    for path in [*walk_media(folder, VIDEO_EXTENSIONS), *walk_media(folder, AUDIO_EXTENSIONS)]:
        before, output = hashlib.sha256(path.read_bytes()).hexdigest(), out_dir / f"{path.stem}_{path.suffix[1:]}.mp4"
        is_sound = path.suffix.lower() in AUDIO_EXTENSIONS
        words = command(video, path, output, config) if is_sound else command(path, audio, output, config, "--length=video")
        outcome = run(path.name, [*words, "--overwrite"], output)
        if hashlib.sha256(path.read_bytes()).hexdigest() != before:
            outcome = InputOutcome(outcome.name, outcome.code, outcome.result, outcome.messages + " INPUT CHANGED")
        yield outcome


def misuse(config: Path, out_dir: Path, video: Path, audio: Path) -> Iterator[InputOutcome]:
    """What goes wrong around the clips: odd sizes and names, outputs that cannot be written, a full disk, Ctrl-C, two runs at once."""
    yield from unusual(config, out_dir, video, audio)
    outputs = {
        "output folder does not exist": out_dir / "new" / "folders" / "result.mp4",
        "unknown ending": out_dir / "result.xyz",
        "output is the input": video,
        "folder cannot be written": Path("/proc/result.mp4"),
    }
    for name, output in outputs.items():
        left = output if output.is_relative_to(out_dir) else out_dir / "none.mp4"
        yield run(name, command(video, audio, output, config, "--overwrite"), left)
    yield full_disk(config, out_dir, video, audio)
    yield interrupted(config, out_dir, video, audio)
    yield from two_at_once(config, out_dir, video, audio)


def unusual(config: Path, out_dir: Path, video: Path, audio: Path) -> Iterator[InputOutcome]:
    """A picture of 3840x2160, a twentieth of a second of sound, names with quotes and signs."""
    inputs = out_dir / "made"
    inputs.mkdir(exist_ok=True)
    large, short, odd = inputs / "4k.mp4", inputs / "short.wav", inputs / '-it\'s "odd" $HOME; [0] %d 100%.mp4'
    quiet = ["ffmpeg", "-v", "error", "-y", "-i"]
    scale = ["-vf", "scale=3840:2160:force_original_aspect_ratio=increase,crop=3840:2160", "-preset", "ultrafast"]
    subprocess.run([*quiet, f"file:{video}", *scale, "-an", f"file:{large}"], check=True)
    subprocess.run([*quiet, f"file:{audio}", "-t", "0.05", f"file:{short}"], check=True)
    shutil.copyfile(video, odd)
    for name, picture, sound in (("4K", large, audio), ("0.05 s of sound", video, short), (odd.name, odd, audio)):
        output = out_dir / f"result {picture.stem} {sound.stem}.mp4"
        yield run(name, command(picture, sound, output, config, "--overwrite"), output)


def full_disk(config: Path, out_dir: Path, video: Path, audio: Path) -> InputOutcome:
    """A file system with 64 kB of room; mounting one takes root."""
    small = out_dir / "small disk"
    small.mkdir(exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], capture_output=True, check=False)
    if mounted.returncode:
        return InputOutcome("full disk", 0, "not tried", "a small file system could not be mounted here")
    try:
        return run("full disk", command(video, audio, small / "result.mp4", config), small / "result.mp4")
    finally:
        subprocess.run(["umount", str(small)], check=True)


def interrupted(config: Path, out_dir: Path, video: Path, audio: Path) -> InputOutcome:
    """Ctrl-C as the first bytes of the result are being written."""
    folder = out_dir / "interrupted"
    folder.mkdir(exist_ok=True)
    output = folder / "result.mp4"
    child = subprocess.Popen(command(video, audio, output, config), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + PATIENCE
    while child.poll() is None and time.monotonic() < deadline and not any(folder.iterdir()):
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    text, _ = child.communicate(timeout=PATIENCE)
    return outcome_of("Ctrl-C in the middle", child.returncode, text, output)


def two_at_once(config: Path, out_dir: Path, video: Path, audio: Path) -> Iterator[InputOutcome]:
    """Two runs side by side in one folder."""
    outputs = [out_dir / f"side_by_side_{name}.mp4" for name in "ab"]
    children = [
        subprocess.Popen(
            command(video, audio, output, config, "--overwrite"), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for output in outputs
    ]
    for child, output in zip(children, outputs, strict=True):
        text, _ = child.communicate(timeout=PATIENCE)
        yield outcome_of(f"two runs at once: {output.name}", child.returncode, text, output)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Put the inference command through hard inputs.")
    parser.add_argument("clips_dir", type=Path)
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--video", type=Path, required=True, help="the video that sounds are paired with")
    parser.add_argument("--audio", type=Path, required=True, help="the sound that videos are paired with")
    parser.add_argument("--skip_misuse", action="store_true")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job hands on that Ctrl-C is ignored
    models = arguments.out_dir / "models"
    write_checkpoint(models, tiny=True)
    (models / "config.yaml").write_text(CONFIG)
    pair = (models / "config.yaml", arguments.out_dir, arguments.video.resolve(), arguments.audio.resolve())
    print("| input | exit code | result | messages |\n|---|---|---|---|", flush=True)
    for outcome in chain(clips_of(arguments.clips_dir.resolve(), *pair), () if arguments.skip_misuse else misuse(*pair)):
        print(outcome, flush=True)


if __name__ == "__main__":
    main()
