"""Rendered talking heads with known truth: pairs, what is measured of them, the table."""
