"""Shared by all tests: few threads, so that small tensors are not slowed down by too many hands."""

import torch

torch.set_num_threads(2)
