"""Calibration sets: rows of a candidate's own data, in batches, ready for a model's stem."""

from regstream.calibration.composition import Composition
from regstream.calibration.drawing import Drawing
from regstream.calibration.loading import CalibrationSet, TokenRows, load_calibration
from regstream.calibration.pixels import PixelRows

__all__ = ["CalibrationSet", "Composition", "Drawing", "PixelRows", "TokenRows", "load_calibration"]
