"""Shared by all tests: few threads, so that small tensors are not slowed down by too many hands; no weights of the user's cache."""

import os
import tempfile
from pathlib import Path

os.environ["HF_HUB_CACHE"] = str(Path(tempfile.gettempdir(), "latentsync-no-cache"))  # read when huggingface_hub is imported

import torch

torch.set_num_threads(2)
