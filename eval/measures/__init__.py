"""The measures: what is told of a video, or of a set of videos, beside its source."""
