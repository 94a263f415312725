"""Metrics of a generated video beside its source, or of sets of videos."""
