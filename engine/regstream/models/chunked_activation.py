"""Activation functions, piece by piece and in place.

Many are several operations, each of which reads and writes all of a tensor; of a wide one, what the first writes has
left the processor's caches before the second reads it. Taken in pieces, it passes through memory once, and nothing as
large stands beside it. No value depends on another, so the result is the same; of rows that are no multiple of a vector
register in width, which no published model has, to one unit in the last place.
"""

import torch
from torch import Tensor, nn

#: Values for each thread at a time; torch splits no less among threads.
_PIECE_VALUES = 1 << 15
_OF_TORCH = (nn.GELU, nn.ReLU, nn.SiLU, nn.Sigmoid, nn.Tanh)
_OF_TRANSFORMERS = "transformers.activations"


class ChunkedActivation(nn.Module):
    """An elementwise function of a tensor that nothing else reads: the result takes its place."""

    def __init__(self, function: nn.Module) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """The function of each value."""
        num_rows = max(1, _PIECE_VALUES * torch.get_num_threads() // max(1, x.shape[-1]))
        for piece in torch.split(x.view(-1, x.shape[-1]), num_rows):
            piece.copy_(self.function(piece))
        return x


def chunk_activations(block: nn.Module) -> None:
    """Have the activation functions of a block go piece by piece."""
    for module in list(block.modules()):
        for name, child in module.named_children():
            if _is_elementwise(child):
                setattr(module, name, ChunkedActivation(child))


def _is_elementwise(module: nn.Module) -> bool:
    if next(module.parameters(), None) is not None:
        return False
    return isinstance(module, _OF_TORCH) or type(module).__module__ == _OF_TRANSFORMERS
