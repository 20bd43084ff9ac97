"""Judging models on held-out rows, block by block."""
