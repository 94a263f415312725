"""S3FD and 2DFAN-4 of the package face-alignment (Bulat, Tzimiropoulos 2017), read from given files instead of downloads."""

from pathlib import Path

import torch
from face_alignment import FaceAlignment, LandmarksType
from face_alignment.detection.sfd.net_s3fd import s3fd
from face_alignment.models import FAN

from latentsync.weights import load_strict, read_state_dict

S3FD_MIN_SCORE = 0.5  # of a box
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
            face_detector_kwargs={"path_to_detector": str(boxes_path), "filter_threshold": S3FD_MIN_SCORE},
        )

    def _load_native(self, network_name: str, network_size: int, device: str, dtype: torch.dtype) -> torch.nn.Module:
        with torch.device("meta"):
            network = FAN(network_size)
        load_strict(network, read_state_dict(self._landmarks_path)[0], self._landmarks_path, HINT, assign=True)
        return network.to(device, dtype=dtype).eval()
