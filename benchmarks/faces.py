"""What finding, aligning and pasting faces costs a frame: `python -m benchmarks.faces [--video CLIP] [--threads N] [--device cuda]`."""

import argparse
import subprocess
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch

from latentsync.faces.alignment import warp_faces
from latentsync.faces.compositing import restore_faces
from latentsync.faces.detector import MtcnnDetector, shrink
from latentsync.faces.mask import to_pixels
from latentsync.faces.plan import plan_spans
from latentsync.faces.tracking import with_cuts

REPEATS = 20
FACE_WIDTHS = (150, 300, 600)  # pixels of the picture that the crop of a face covers


def main() -> None:
    """Prints one line a measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--video", type=Path, help="a clip with a face, for the look pass")
    parser.add_argument("--frames", type=int, default=250, help="frames of the clip that are looked at")
    parser.add_argument("--threads", type=int, default=2, help="threads of OpenCV (torch uses one here)")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(arguments.threads)
    for size in ((1280, 720), (1920, 1080), (3840, 2160)):
        for resolution in (256, 512):
            for face_width in FACE_WIDTHS:
                measure_make(size, resolution, face_width, arguments.device)
    if arguments.video:
        measure_look(arguments.video, arguments.frames, arguments.device)


def measure_make(size: tuple[int, int], resolution: int, face_width: int, device: str) -> None:
    """Align and restore on a picture of this size."""
    noise = np.random.default_rng(0).integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
    frame = cv2.resize(noise, size, interpolation=cv2.INTER_CUBIC)
    scale = 210 * resolution / 256 / face_width
    corner = (size[0] / 2 - face_width / 2, size[1] / 2 - face_width * 2 / 3)
    matrix = torch.tensor([[[scale, 0.05 * scale, -scale * corner[0]], [-0.05 * scale, scale, -scale * corner[1]]]])
    pixels = to_pixels(warp_faces([frame], matrix, resolution, device))
    align = milliseconds(lambda: warp_faces([frame], matrix, resolution, device), device)
    restore = milliseconds(lambda: restore_faces([frame], pixels, matrix), device)
    print(
        f"{size[0]}x{size[1]}, R {resolution}, crop {face_width} px wide: align {align:.2f} ms, "
        f"restore {restore:.2f} ms a frame, together {1000 / (align + restore):.0f} fps"
    )


def milliseconds(work: Callable[[], object], device: str) -> float:
    """The best of a few runs, so that other work on the machine counts little."""
    best = float("inf")
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best * 1000


def measure_look(video: Path, count: int, device: str) -> None:
    """The look pass, decoding included, beside full detection in every frame."""
    detector = MtcnnDetector(device)
    wall, cpu = time.perf_counter(), time.process_time()
    plan = plan_spans(decode(video, count), detector, 256, 25.0)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    frames = plan.num_frames
    print(f"look pass of {video.name}: {frames / wall:.1f} fps, {cpu / frames * 1000:.1f} ms of processor time a frame without the decoder")
    start = time.perf_counter()
    decoded = sum(1 for _ in decode(video, count))
    print(f"decoding alone: {decoded / (time.perf_counter() - start):.1f} fps")
    few = list(islice(decode(video, count), 32))
    start = time.process_time()
    list(with_cuts(shrink(frame, detector.long_side) for frame in few))
    print(f"shrinking and cuts: {(time.process_time() - start) / len(few) * 1000:.2f} ms a frame")
    small = [shrink(frame, detector.long_side) for frame in few]
    faces = detector.detect(small[0])
    print(f"full detection: {milliseconds(lambda: detector.detect(small[0]), device):.1f} ms")
    print(f"following {len(faces)}: {milliseconds(lambda: detector.follow(small[1], faces), device):.1f} ms")


def decode(video: Path, count: int) -> Iterator[np.ndarray]:
    """The first frames of a clip at 25 fps, uint8 [h w 3]."""
    probe = ["ffmpeg", "-v", "error", "-i", f"file:{video}", "-frames:v", "1", "-f", "image2pipe", "-c:v", "png", "-"]
    first = cv2.imdecode(np.frombuffer(subprocess.run(probe, capture_output=True, check=True).stdout, np.uint8), cv2.IMREAD_COLOR)
    command = ["ffmpeg", "-v", "error", "-i", f"file:{video}", "-vf", "fps=25", "-frames:v", str(count), "-f", "rawvideo"]
    with subprocess.Popen([*command, "-pix_fmt", "rgb24", "-"], stdout=subprocess.PIPE) as process:
        while len(raw := process.stdout.read(first.size)) == first.size:
            yield np.frombuffer(raw, np.uint8).reshape(first.shape)


if __name__ == "__main__":
    main()
