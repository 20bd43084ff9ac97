"""Rows of calibration and evaluation sets, from files and data sets to batches."""
