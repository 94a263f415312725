"""True mouth channels of rendered clips, from the .json beside them."""

import json
from pathlib import Path

import numpy as np

from latentsync.data.findings import sidecar
from latentsync.errors import InputError


def read_mouth(clip: Path) -> np.ndarray:
    """Mouth channels of all frames of a rendered clip: float32 n k. Raises InputError where it comes without."""
    path = sidecar(clip)
    try:
        values = np.asarray(json.loads(path.read_bytes())["mouth"]["values"], dtype=np.float32)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} tells no mouth channels ({type(error).__name__}): render this clip again") from None
    if values.ndim != 2 or not np.isfinite(values).all():
        raise InputError(f"{path} tells mouth channels that are no table of numbers: render this clip again")
    return values
