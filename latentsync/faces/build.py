"""The detector for a machine: the 68-point one when its two files are there, else the one that needs none."""

from pathlib import Path

import torch

from latentsync.errors import InputError
from latentsync.faces.detector import FaceDetector

NAMES = ("auto", "mtcnn", "face-alignment")


def build_detector(name: str, s3fd_path: Path, fan_path: Path, device: torch.device | str = "cpu") -> FaceDetector:
    """A detector by name; "auto" takes face-alignment when both weight files exist, mtcnn otherwise.

    Raises InputError for another name, WeightsError when the named one cannot be loaded.
    """
    if name not in NAMES:
        raise InputError(f"There is no face detector '{name}': use one of {', '.join(NAMES)}.")
    if name == "face-alignment" or (name == "auto" and s3fd_path.is_file() and fan_path.is_file()):
        from latentsync.faces.fan import FanDetector  # takes seconds to import

        return FanDetector(s3fd_path, fan_path, device)
    from latentsync.faces.mtcnn import MtcnnDetector

    return MtcnnDetector(device)
