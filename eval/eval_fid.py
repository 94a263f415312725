"""Frechet inception distance of two folders: `python -m eval.eval_fid --real DIR --generated DIR [--inception FILE] [--output_dir OUT]`."""

import sys

from eval.eval_fvd import main

if __name__ == "__main__":
    sys.exit(main("fid"))
