"""The closed form: sums over candidates on one side, a factorisation on the other."""

from regstream.solve.factor import REFINED_ROWS
from regstream.solve.report import Solve
from regstream.solve.spectral import FILTERED_ROWS
from regstream.solve.system import PANEL_ROWS, System, visited_condition

__all__ = ["FILTERED_ROWS", "PANEL_ROWS", "REFINED_ROWS", "Solve", "System", "visited_condition"]
