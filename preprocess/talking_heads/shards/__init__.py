"""Aligned faces for training: rendered ahead into shards, read back as a stream."""
