"""How much of a matrix a device handles at a time: what fits a processor's caches would leave an accelerator idle."""

from dataclasses import dataclass

import torch

from regstream.device.accelerator_kinds import KINDS


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """Rows and columns that are handled at a time. All but `transposed_rows` decide the last bits of a result."""

    #: Columns of a symmetric matrix: what lies beyond a panel's diagonal block on the other side is neither formed nor
    #: kept. The blocks themselves are kept apart, which takes their width for every row.
    panel_columns: int
    #: Columns of a diagonal block: fewer, since there the products form both sides of the diagonal.
    strip_columns: int
    #: Rows that become columns.
    transposed_rows: int
    #: Output rows of right-hand sides and their solutions.
    panel_rows: int
    #: Columns of the Cholesky factor.
    factor_columns: int
    #: Columns of a solution by substitution.
    solved_columns: int
    #: Rows in refinement, of which there are two copies in float64.
    refined_rows: int
    #: Rows of a singular system's solution, of which there are ten copies in float64.
    filtered_rows: int


#: Diagonal blocks of the factor stay in a core's cache, and wider ones would be split among threads; more rows would
#: leave the caches before all of them are columns.
PROCESSOR = Tiles(
    panel_columns=512,
    strip_columns=128,
    transposed_rows=256,
    panel_rows=1024,
    factor_columns=128,
    solved_columns=256,
    refined_rows=256,
    filtered_rows=128,
)
#: A GPU forms some hundred tiles of 128 by 128 at a time, and each operation is a launch: the least product has 64 such
#: tiles. A wider panel would keep more beside the diagonal than it saves.
ACCELERATOR = Tiles(
    panel_columns=1024,
    strip_columns=1024,
    transposed_rows=4096,
    panel_rows=1024,
    factor_columns=1024,
    solved_columns=1024,
    refined_rows=512,
    filtered_rows=256,
)


def tiles_of(device: torch.device) -> Tiles:
    """What suits a device, whether or not this machine has it."""
    return ACCELERATOR if device.type in KINDS else PROCESSOR
