"""Frechet inception distance of two folders: `python -m eval.eval_fid --real DIR --generated DIR [--inception FILE] [--output_dir OUT]`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from eval.set_distance import make_parser, run_set_command
from latentsync.errors import InputError

if TYPE_CHECKING:  # torch and its company take seconds to import, which --help should not
    import torch

    from eval.metrics.distribution import Fid


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = make_parser("eval_fid", "Frechet inception distance")
    parser.add_argument("--inception", type=Path, help="Inception as TorchScript (default: that in checkpoints/)")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take every Nth frame (default %(default)s)")
    parsed = parser.parse_args(arguments)

    def build(weights: Path, device: "torch.device") -> "Fid":
        from eval.metrics.distribution import Fid, load_inception

        if parsed.every < 1:
            raise InputError(f"--every is {parsed.every}: give 1 for all frames, 5 for five a second")
        return Fid(load_inception(weights, device), parsed.every, device)

    return run_set_command(parsed, parsed.inception, "inception", build)


if __name__ == "__main__":
    sys.exit(main())
