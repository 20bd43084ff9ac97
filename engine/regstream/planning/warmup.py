"""Call once what a merge calls, so that what libraries map and allocate for it is measured before memory is projected.

How much of its file a library maps is no constant: pieces of 4 KiB to 2 MiB, as the page cache happens to hold them, a
newly installed one up to 130 MiB more than one that was read. After a first call it is measured, not guessed.
"""

import torch
from torch.nn import functional

from regstream.device.workspace import Workspace
from regstream.methods.method import Method
from regstream.methods.statistics import LinearGroup

#: What a run's libraries and their first calls add to the process, for plans that are made without: 15 MiB in a plan of
#: SmolLM2's merge, with torch 2.13 on x86-64.
WARM_UP_BYTES = 24 << 20
_WIDTH, _HEAD_WIDTH, _TOKENS = 256, 64, 512
#: Tokens of hardly more than one direction, so that solves take their longest way.
_SPREAD = 0.01


@torch.no_grad()
def warm_up(method: Method, dtype: torch.dtype, device: torch.device) -> None:
    """Pass a few tokens through operations that blocks are made of, in their dtype, and solve a small system."""
    x, weight = warm_up_forward(dtype, device)
    torch.mm(x.double(), weight.double())  # refinement
    group = LinearGroup(name="", in_features=_WIDTH, out_features={"": _WIDTH})
    statistics = method.statistics(group, Workspace(device))
    for reference in (None, {"": weight}):
        statistics.begin_candidate(_TOKENS)
        statistics.add_tokens(*[x] * len(method.streams))
        statistics.add_candidate({"": weight * 0.5}, reference, weight=1.0)
    statistics.solve(lambda _, rows: torch.zeros(_WIDTH, _WIDTH, dtype=statistics.dtype, device=device)[rows])


@torch.no_grad()
def warm_up_forward(dtype: torch.dtype, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Pass a few tokens through operations that stem and blocks are made of; returns them and a weight."""
    x = torch.randn(_TOKENS, 1, generator=torch.Generator().manual_seed(0))
    x = x + _SPREAD * torch.randn(_TOKENS, _WIDTH, generator=torch.Generator().manual_seed(1))
    x, weight = x.to(device, dtype), torch.eye(_WIDTH, dtype=dtype, device=device)
    _embed(x)
    _forward(x, weight)
    return x, weight


def _embed(x: torch.Tensor) -> None:
    images = x.view(-1, 2, 32, 32)
    functional.conv2d(images, images[:, :, :8, :8], stride=8)


def _forward(x: torch.Tensor, weight: torch.Tensor) -> None:
    heads = functional.linear(x, weight).view(2, -1, _WIDTH // _HEAD_WIDTH, _HEAD_WIDTH).transpose(1, 2)
    functional.scaled_dot_product_attention(heads, heads, heads, is_causal=True)
    functional.scaled_dot_product_attention(heads, heads, heads)
    functional.gelu(functional.silu(functional.layer_norm(x, (_WIDTH,), x[0], x[1])))
    functional.softmax(x.float().square().mean(-1).rsqrt(), -1)
