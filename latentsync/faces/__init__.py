"""Faces: finding them, following them through a video, bringing them to the template and back."""
