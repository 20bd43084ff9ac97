"""Residuals and changes as the record of a merge has them, and finished results that have them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from regstream.output.record import read_provenance, write_provenance

_GROUPS = {
    "self_attn.q_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attn.o_proj": ("self_attn.o_proj",),
    "mlp.gate_proj": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.down_proj": ("mlp.down_proj",),
}
#: That of the merged weights in the first block, from which it grows with depth. The mean's are half as large again.
_RESIDUAL = 0.1
CANDIDATES = ("math", "code", "chat")


def residuals_of_block(block: int, candidates: Sequence[str] = CANDIDATES, num_blocks: int = 4) -> list[dict[str, Any]]:
    """The residuals of one block: larger from candidate to candidate, group to group, and with depth."""
    return [
        {
            "group": group,
            "candidates": {
                name: {"merged": merged, "mean": 1.5 * merged}
                for place, name in enumerate(candidates)
                for merged in [_RESIDUAL * (1 + 2 * block / num_blocks + 0.1 * place + 0.01 * index)]
            },
        }
        for index, group in enumerate(_GROUPS)
    ]


def changes_of_block(
    block: int, candidates: Sequence[str] = CANDIDATES, kept: Mapping[str, float | None] | None = None
) -> list[dict[str, Any]]:
    """The changes of one block: each candidate's is a tenth of the base, of which the merged model has a half, or as
    much as `kept` says; None: no change."""
    shares = dict.fromkeys(candidates, 0.5) | dict(kept or {})
    return [
        {
            "parameter": f"model.layers.{block}.{linear}.weight",
            "rule": "regress",
            "base_norm": 10.0,
            "candidates": {
                name: {"norm": 0.0 if share is None else 1.0, "kept": share} for name, share in shares.items()
            },
        }
        for linears in _GROUPS.values()
        for linear in linears
    ]


def set_numbers(folder: Path, kept: Mapping[str, float | None] | None = None, *, residuals: bool = True) -> None:
    """Put residuals and changes of every block, and no others, into the record of a finished result."""
    record = read_provenance(folder)
    names = list(record["candidates"])
    blocks = [step for step in record["steps"] if step["name"].startswith("block")]
    for step in record["steps"]:
        step |= {"residuals": [], "changes": []}
    for index, step in enumerate(blocks):
        step["residuals"] = residuals_of_block(index, names, len(blocks)) if residuals else []
        step["changes"] = changes_of_block(index, names, kept)
    write_provenance(folder, record, record["files"])


def record(num_blocks: int = 4, candidates: Sequence[str] = CANDIDATES, **entries: Any) -> dict[str, Any]:
    """The record of a merge that was never made."""
    steps = [
        {
            "name": f"block {block}",
            "shard": f"model-{block}.safetensors",
            "solves": [],
            "residuals": residuals_of_block(block, candidates, num_blocks),
            "changes": changes_of_block(block, candidates),
        }
        for block in range(num_blocks)
    ]
    made = {"regstream": "0", "method": "regmean++", "manifest": "", "base": "base", "sha256": ""}
    inputs = {"candidates": dict.fromkeys(candidates, "folder"), "identity": {"manifest": {}}}
    return {**made, **inputs, "steps": steps, "files": {}, **entries}
