"""Call once what a merge calls, so that what libraries map and set up for it is held before memory is projected.

How much a library maps of its file is no constant: pieces of 4 KiB to 2 MiB, as the page cache happens to hold them, a
newly installed one up to 130 MiB more than one that was read. After a first call it is measured, not guessed.
"""

import torch
from torch.nn import functional

from regstream.linalg.gram import Workspace, accumulation_dtype
from regstream.linalg.normal_equations import NormalEquations
from regstream.methods.regmean import RegMean

_WIDTH, _HEAD_WIDTH, _TOKENS = 256, 64, 512
#: Hardly more than one direction, with little off the diagonal taken away: sums in float32 are refined in float64 then.
_SPREAD, _ALPHA = 0.01, 0.99


@torch.no_grad()
def warm_up(method: RegMean, dtype: torch.dtype, device: torch.device) -> None:
    """Pass a few tokens through operations that blocks are made of, in their dtype, and solve a small system."""
    x = torch.randn(_TOKENS, 1, generator=torch.Generator().manual_seed(0))
    x = x + _SPREAD * torch.randn(_TOKENS, _WIDTH, generator=torch.Generator().manual_seed(1))
    x, weight = x.to(device, dtype), torch.eye(_WIDTH, dtype=dtype, device=device)
    _embed(x)
    _forward(x, weight)
    workspace = Workspace(device, accumulation_dtype(method.alpha))
    system = NormalEquations("", {"": (_WIDTH, _WIDTH)}, alpha=_ALPHA, workspace=workspace)
    system.gram.expect(_TOKENS)
    system.gram.add(x)
    system.add({"": weight}, {"": weight * 0.5}, weight=1.0)
    system.solve(lambda _, rows: workspace.zeros(_WIDTH, _WIDTH)[rows])


def _embed(x: torch.Tensor) -> None:
    images = x.view(-1, 2, 32, 32)
    functional.conv2d(images, images[:, :, :8, :8], stride=8)


def _forward(x: torch.Tensor, weight: torch.Tensor) -> None:
    heads = functional.linear(x, weight).view(2, -1, _WIDTH // _HEAD_WIDTH, _HEAD_WIDTH).transpose(1, 2)
    functional.scaled_dot_product_attention(heads, heads, heads, is_causal=True)
    functional.scaled_dot_product_attention(heads, heads, heads)
    functional.gelu(functional.silu(functional.layer_norm(x, (_WIDTH,), x[0], x[1])))
    functional.softmax(x.float().square().mean(-1).rsqrt(), -1)
