"""Talking heads rendered by this project: speech with phoneme times, mouths that follow it, and labels of every frame."""
