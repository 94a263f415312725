"""Tiny clips for the tests, drawn by ffmpeg itself."""

import subprocess
from pathlib import Path

import numpy as np
import psutil

TEST_PICTURE = "testsrc2=size=96x64:rate=25:duration=3"  # every frame differs from the others
TEST_SOUND = "aevalsrc=0.4*sin(2*PI*t*(300+500*t)):sample_rate=44100:duration=3"  # a sweep: it matches itself at one shift only

BURSTS = "aevalsrc=0.6*sin(2*PI*880*t)*lt(mod(t+0.35\\,0.5)\\,0.08):sample_rate=48000:duration=3"  # 80 ms each, at 0.15, 0.65, ...
HOLE = ("-af", "asetpts=PTS+if(gte(T\\,1)\\,1/TB\\,0)")  # an output option: time stamps jump by a second, no sample fills the hole


def run_ffmpeg(*arguments: str | Path) -> None:
    """Run ffmpeg; what it writes to standard error becomes the failure."""
    command = ["ffmpeg", "-hide_banner", "-loglevel", "error", "-nostdin", "-y", *(str(argument) for argument in arguments)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr


def make_clip(path: Path, *options: str, picture: str = TEST_PICTURE, sound: str | None = None) -> Path:
    """A clip of `picture` (and `sound`) encoded with `options` (default: H.264 with a key frame every 20 frames)."""
    quick = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "20", "-pix_fmt", "yuv420p") if "-c:v" not in options else ()
    sources = ["-f", "lavfi", "-i", picture] + (["-f", "lavfi", "-i", sound] if sound else [])
    run_ffmpeg(*sources, *quick, *options, f"file:{path}")
    return path


def make_sound(path: Path, *options: str, sound: str = TEST_SOUND) -> Path:
    """A sound file; the codec is the usual one of its ending unless `options` name another."""
    run_ffmpeg("-f", "lavfi", "-i", sound, *options, f"file:{path}")
    return path


def onsets(samples: np.ndarray, rate: int = 16000) -> list[float]:
    """Seconds at which a sound (t) begins after at least 60 ms of silence, to a millisecond."""
    step = rate // 1000
    loud = np.abs(samples[: len(samples) // step * step].reshape(-1, step)).max(1) > 0.1
    return [place / 1000 for place in np.flatnonzero(loud) if not loud[max(0, place - 60) : place].any()]


def smooth_frames(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Frames (uint8 h w 3) with soft colour ramps, which 4:2:0 keeps."""
    y, x = np.mgrid[0:height, 0:width]
    frames = []
    for k in range(count):
        ramps = (np.sin(x / 17 + k / 3), np.cos(y / 13 - k / 4), np.sin((x + y) / 23 + k / 5))
        frames.append(np.stack([127 + 90 * ramp for ramp in ramps], axis=-1).astype(np.uint8))  # h w c
    return frames


def encode_frames(path: Path, frames: list[np.ndarray], filters: str, *options: str) -> Path:
    """Write frames with ffmpeg alone (none of this project's code), through the given filters."""
    height, width, _ = frames[0].shape
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-video_size", f"{width}x{height}", "-framerate", "25", "-i", "pipe:0"]
    command = ["ffmpeg", "-loglevel", "error", "-y", *source, "-vf", filters, *options, str(path)]
    subprocess.run(command, input=b"".join(frame.tobytes() for frame in frames), check=True)
    return path


TAGS = {  # what ffmpeg's filter writes -> the matrix and range that the file says, and options that make it say so
    "bt709": ("bt709", "tv", ("-colorspace", "bt709", "-color_range", "tv", "-color_primaries", "bt709", "-color_trc", "bt709")),
    "bt601": ("smpte170m", "tv", ("-colorspace", "smpte170m", "-color_range", "tv")),
    "bt709 full": ("bt709", "pc", ("-colorspace", "bt709", "-color_range", "pc")),
    "bt2020": ("bt2020nc", "tv", ("-colorspace", "bt2020nc", "-color_range", "tv")),
    "bt601 untagged": (None, None, ()),
}


def encode_tagged(path: Path, frames: list[np.ndarray], matrix: str, pixels: str = "yuv420p") -> Path:
    """Frames in the colours of an entry of `TAGS`, almost without loss."""
    _, span, tags = TAGS[matrix]
    filters = f"scale=out_color_matrix={matrix.split()[0]}:out_range={span or 'tv'}:flags=accurate_rnd,format={pixels}"
    return encode_frames(path, frames, filters, *tags, "-c:v", "libx264", "-qp", "1")


def children() -> list[str]:
    """Command names of this process' children, zombies included."""
    return [child.name() for child in psutil.Process().children()]
