"""LatentSync: make the mouth in a video say the words of another recording (arXiv 2412.09262)."""
