"""The data pipeline: raw video to training clips."""
