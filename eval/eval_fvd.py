"""Frechet video distance of two folders of videos: `python -m eval.eval_fvd --real DIR --generated DIR [--i3d FILE] [--output_dir OUT]`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from eval.set_distance import make_parser, run_set_command

if TYPE_CHECKING:  # torch and its company take seconds to import, which --help should not
    import torch

    from eval.metrics.distribution import Fvd


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = make_parser("eval_fvd", "Frechet video distance")
    parser.add_argument("--i3d", type=Path, help="I3D as TorchScript (default: i3d_torchscript.pt in checkpoints/)")
    parser.add_argument(
        "--windows",
        choices=("one", "all"),
        default="one",
        help="one (default): frames 20 to 35 of each video, as LatentSync measures; all: every 16 frames, for a covariance of full rank",
    )
    parsed = parser.parse_args(arguments)

    def build(weights: Path, device: "torch.device") -> "Fvd":
        from eval.metrics.distribution import Fvd, load_i3d

        return Fvd(load_i3d(weights, device), parsed.windows, device)

    return run_set_command(parsed, parsed.i3d, "i3d", build)


if __name__ == "__main__":
    sys.exit(main())
