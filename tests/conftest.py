"""Shared by all tests: few threads for small tensors, one instruction set for all libraries, no weights of the user's cache."""

import os
import tempfile
from pathlib import Path

if os.environ.get("ATEN_CPU_CAPABILITY") in {"default", "avx2"}:
    # torch 2.15 packs bfloat16 matrices for AVX-512 where oneDNN has it, even if its own kernels are held to less, and then fails
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
os.environ["HF_HUB_CACHE"] = str(Path(tempfile.gettempdir(), "latentsync-no-cache"))  # read when huggingface_hub is imported

import torch

torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)
