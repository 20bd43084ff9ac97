"""Activation functions applied in place, chunk by chunk.

Many activation functions are several operations. On a wide tensor, the output of the first has left the processor's
caches when the second reads it; chunks that fit into the caches pass through memory once, and need no second tensor of
full size. The function is elementwise, so the result is the same. Only for rows whose width is no multiple of a vector
register, which no published model has, may it differ by one unit in the last place.
"""

import torch
from torch import Tensor, nn

from regstream.models.unknown import Unknown

#: Values of a chunk per thread; torch does not split smaller tensors among threads.
_CHUNK_VALUES = 1 << 15
_TORCH_CLASSES = (nn.GELU, nn.ReLU, nn.SiLU, nn.Sigmoid, nn.Tanh)
_TRANSFORMERS_MODULE = "transformers.activations"


class ChunkedActivation(nn.Module):
    """An elementwise function that overwrites its input, which nothing else may read."""

    def __init__(self, function: nn.Module) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function to `x` in place, and return `x`."""
        if isinstance(x, Unknown):
            return x
        num_rows = max(1, _CHUNK_VALUES * torch.get_num_threads() // max(1, x.shape[-1]))
        for chunk in torch.split(x.view(-1, x.shape[-1]), num_rows):
            chunk.copy_(self.function(chunk))
        return x


def chunk_activations(block: nn.Module) -> None:
    """Replace the activation functions of a block by `ChunkedActivation`."""
    for module in list(block.modules()):
        for name, child in module.named_children():
            if _is_elementwise(child):
                setattr(module, name, ChunkedActivation(child))


def restore_activations(block: nn.Module) -> None:
    """Undo `chunk_activations`."""
    for module in list(block.modules()):
        for name, child in module.named_children():
            if isinstance(child, ChunkedActivation):
                setattr(module, name, child.function)


def _is_elementwise(module: nn.Module) -> bool:
    if next(module.parameters(), None) is not None:
        return False
    return isinstance(module, _TORCH_CLASSES) or type(module).__module__ == _TRANSFORMERS_MODULE
