"""Data: rendered talking heads with known truth."""
