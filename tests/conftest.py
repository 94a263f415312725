"""Shared by all tests: few threads, so that small tensors are not slowed down by too many hands; one instruction set for all libraries."""

import os

if os.environ.get("ATEN_CPU_CAPABILITY") in {"default", "avx2"}:
    # torch 2.15 packs bfloat16 matrices for AVX-512 where oneDNN has it, even if its own kernels are held to less, and then fails
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")

import torch

torch.set_num_threads(2)
