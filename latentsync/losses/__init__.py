"""Losses beside the error of the noise: a frozen network each, and what it makes of generated faces."""
