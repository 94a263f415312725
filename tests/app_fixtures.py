"""The app at tiny sizes: real page, real queue, real pipeline with seeded networks, clips of a second."""

import atexit
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from unittest.mock import patch

import cv2
import gradio as gr
import numpy as np
from test_inference_command import CONFIG, picture, write_sound, write_video

from benchmarks.write_random_checkpoint import write_checkpoint
from latentsync.app import ui
from latentsync.app.handlers import Sessions
from latentsync.app.models import ModelCache, ModelChoice, find_models
from latentsync.config import Sampling
from latentsync.faces.detector import Face
from latentsync.pipelines.build import build_pipeline
from latentsync.pipelines.lipsync_pipeline import LipsyncPipeline

KEEP_SECONDS = 10  # that the job of a page that went stays


class OneFace:
    """A detector that sees one face, always in the same place: quick, and holds nothing."""

    name, weights, smoothing, long_side = "fixed", "", "none", None

    def detect(self, frame: np.ndarray) -> list[Face]:
        anchors = np.array([[175, 75], [215, 75], [195, 105]], np.float32)
        return [Face(np.array([150, 40, 240, 160], np.float32), 1.0, anchors)]


def choice(key: str = "tiny", steps: int = 1) -> ModelChoice:
    return ModelChoice(key, f"The {key} model", "Seeded, never trained.", Path("tiny.yaml"), None, Sampling(steps, 1.0))


@cache
def tiny_weights() -> Path:
    """The configuration of networks of a megabyte, in a folder that goes with the process."""
    folder = Path(tempfile.mkdtemp(prefix="latentsync-tests-"))
    atexit.register(shutil.rmtree, folder)
    write_checkpoint(folder, tiny=True)
    config = folder / "config.yaml"
    config.write_text(f"{CONFIG}run: {{inference_steps: 1}}\n")
    return config


@cache
def tiny_pipeline() -> LipsyncPipeline:
    pipeline = build_pipeline(tiny_weights(), device="cpu", detector="mtcnn")
    pipeline.face_detector = OneFace()
    return pipeline


def tiny_models(*keys: str) -> ModelCache:
    """A cache whose models are all the same pipeline."""
    return ModelCache([choice(key) for key in keys or ("tiny",)], lambda _: tiny_pipeline())


@cache
def clips() -> dict[str, Path]:
    """A talker (20 frames), a video without a face, two sounds of 0.97 and 0.3 s, and a file of 6 MB, in a folder with a hard name."""
    folder = Path(tempfile.mkdtemp(prefix="latentsync tésts-"))
    atexit.register(shutil.rmtree, folder)
    (folder / "large.mp4").write_bytes(bytes(6 << 20))
    cv2.imwrite(str(folder / "photo.png"), cv2.resize(picture(0), (768, 512))[..., ::-1])
    sound = ["-f", "lavfi", "-i", "sine=duration=0.3", "-f", "lavfi", "-i", "testsrc=size=64x48:duration=0.3"]
    subprocess.run(["ffmpeg", "-v", "error", *sound, "-c:v", "mpeg4", "-c:a", "mp2", folder / "foreign.avi"], check=True)
    small = cv2.resize(picture(0), None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)
    both = np.full((256, 384 + small.shape[1] // 2 * 2, 3), 120, np.uint8)
    both[:, :384], both[: small.shape[0], 384:] = picture(0), small[:, : both.shape[1] - 384]
    return {
        "two": write_video(folder / "two.mp4", [both] * 12),
        "photo": folder / "photo.png",
        "foreign": folder / "foreign.avi",
        "talk": write_video(folder / "talk.mp4", [picture(k) for k in range(20)]),
        "nobody": write_video(folder / "nobody.mp4", [np.full((96, 128, 3), k, np.uint8) for k in range(10)]),
        "words": write_sound(folder / "words.wav", 0.97),
        "short": write_sound(folder / "short.wav", 0.3),
        "large": folder / "large.mp4",
    }


@dataclass
class Served:
    page: gr.Blocks
    sessions: Sessions

    @property
    def address(self) -> str:
        return self.page.local_url.rstrip("/")

    def left_behind(self) -> list[Path]:
        """Files with something in them."""
        try:
            return [path for path in Path(os.environ["GRADIO_TEMP_DIR"]).rglob("*") if path.is_file() and path.stat().st_size]
        except FileNotFoundError:  # went meanwhile
            return self.left_behind()


@contextmanager
def served() -> Iterator[Served]:
    """The app with networks that are loaded from files as a user's are, the detector that users have, and little patience."""
    models = ModelCache(
        find_models(config=tiny_weights()), lambda chosen: build_pipeline(chosen.config, chosen.unet, device="cpu", detector="mtcnn")
    )
    os.environ["GRADIO_IS_E2E_TEST"] = "1"  # Gradio then notices in a quarter of a second, not in 15 s, that a page was closed
    made = []
    note = patch.object(ui, "Sessions", lambda *settings: made.append(Sessions(*settings)) or made[-1])
    with note, ui.serving(models, max_minutes=1, max_megabytes=5, keep_minutes=KEEP_SECONDS / 60) as page:
        yield Served(page, *made)
