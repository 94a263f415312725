"""Frechet video distance of two folders of videos: `python -m eval.eval_fvd --real DIR --generated DIR [--i3d FILE] [--output_dir OUT]`."""

import sys

from eval.set_distance import main

if __name__ == "__main__":
    sys.exit(main("fvd"))
