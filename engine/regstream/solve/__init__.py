"""The closed form: sums over candidates on one side, a factorisation and its ladder on the other."""

from regstream.solve.factor import REFINED_ROWS
from regstream.solve.report import Solve
from regstream.solve.system import PANEL_ROWS, System

__all__ = ["PANEL_ROWS", "REFINED_ROWS", "Solve", "System"]
