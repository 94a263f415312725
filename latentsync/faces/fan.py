"""The 68-point detector: face-alignment's S3FD and 2DFAN-4, loaded from files of this machine only."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from face_alignment import FaceAlignment, LandmarksType
from face_alignment.detection.sfd.net_s3fd import s3fd
from face_alignment.models import FAN

from latentsync.faces.align import anchors_from_landmarks
from latentsync.faces.cuts import shrink
from latentsync.faces.detector import Face, Smoothing
from latentsync.weights import load_strict, read_state_dict

BOX_SIDE = 640  # pixels of the long side that boxes are looked for in; landmarks are found in the picture itself
MIN_SCORE = 0.5  # of a box
HINT = "use the file of the face-alignment project, or the detector 'mtcnn', which needs none"


class LocalFaceAlignment(FaceAlignment):
    """face-alignment with its landmark network read from a given file instead of a download."""

    def __init__(self, boxes_path: Path, landmarks_path: Path, device: str) -> None:
        self._landmarks_path = landmarks_path
        with torch.device("meta"):
            boxes = s3fd()
        load_strict(boxes, read_state_dict(boxes_path)[0], boxes_path, HINT, assign=True)  # the library reads it unchecked
        super().__init__(
            LandmarksType.TWO_D,
            device=device,
            compile=False,
            face_detector="sfd",
            face_detector_kwargs={"path_to_detector": str(boxes_path), "filter_threshold": MIN_SCORE},
        )

    def _load_native(self, network_name: str, network_size: int, device: str, dtype: torch.dtype) -> torch.nn.Module:
        with torch.device("meta"):
            network = FAN(network_size)
        load_strict(network, read_state_dict(self._landmarks_path)[0], self._landmarks_path, HINT, assign=True)
        return network.to(device, dtype=dtype).eval()


class FanDetector:
    """Boxes from S3FD, 68 landmarks from 2DFAN-4, anchors as means of brows and nose."""

    name = "face-alignment"
    smoothing: Smoothing = "laplacian"
    long_side: int | None = None

    def __init__(self, boxes_path: Path, landmarks_path: Path, device: torch.device | str = "cpu") -> None:
        """Raises WeightsError when a file is missing or does not hold the network it is named for."""
        with own_cudnn_flags():
            self._networks: Any = LocalFaceAlignment(boxes_path, landmarks_path, str(device))

    def detect(self, picture: np.ndarray) -> list[Face]:
        """All faces of a picture uint8 [h w 3]."""
        small = shrink(picture, BOX_SIDE)
        scale = max(picture.shape[:2]) / max(small.shape[:2])
        with own_cudnn_flags():
            found = self._networks.face_detector.detect_from_image(np.ascontiguousarray(small))
            boxes = [np.array([*(np.asarray(box[:4]) * scale), box[4]]) for box in found if box[2] > box[0] and box[3] > box[1]]
            landmarks = self._networks.get_landmarks_from_image(picture, detected_faces=boxes) if boxes else []
        return [
            Face(box[:4].astype(np.float32), float(box[4]), anchors_from_landmarks(points), np.asarray(points, np.float64))
            for box, points in zip(boxes, landmarks, strict=True)
        ]


def own_cudnn_flags() -> AbstractContextManager[None]:
    """The library switches cuDNN's benchmark mode on for the whole program; what it does inside is undone at the end."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=True)
