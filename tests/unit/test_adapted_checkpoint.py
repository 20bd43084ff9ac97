"""A model with an adapter on it: read as peft merges it, whole or in stretches, and shared between candidates."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import checkpoints
from adapters import LINEARS, make_adapter, merge_with_peft
from regstream.checkpoint import adapted_checkpoint
from regstream.checkpoint.adapted_checkpoint import AdaptedCheckpoint
from regstream.checkpoint.adapter import open_adapter
from regstream.checkpoint.checkpoint import Checkpoint, open_checkpoint
from regstream.checkpoint.shared_checkpoint import LastReadCache, SharedCheckpoint
from regstream.errors import InputError

LLAMA = LINEARS["llama"]
CASES: dict[str, tuple[checkpoints.Family, dict[str, Any]]] = {
    family: (family, {"target_modules": linears}) for family, linears in LINEARS.items()
} | {
    "all linears": ("llama", {"target_modules": "all-linear", "r": 3}),
    "gpt2 said to be transposed": ("gpt2", {"target_modules": LINEARS["gpt2"], "fan_in_fan_out": True}),
    "rank-stabilised": ("llama", {"target_modules": LLAMA, "use_rslora": True, "r": 5}),
    "ranks and alphas of their own": (
        "llama",
        {
            "target_modules": LLAMA,
            "rank_pattern": {"layers.1.self_attn.q_proj": 2, r".*\.[02]\.self_attn\.v_proj": 7},
            "alpha_pattern": {"^model.layers.0.self_attn.q_proj": 3, "v_proj": 32, "proj": 9},
        },
    ),
    "patterns by the root of the rank": (
        "llama",
        {"target_modules": LLAMA, "use_rslora": True, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 3}},
    ),
    "whole modules": ("llama", {"target_modules": LLAMA, "modules_to_save": ["lm_head", "input_layernorm", "norm"]}),
    "a head with the weight below": ("llama", {"target_modules": ["lm_head", "q_proj"]}),
    "a tuned embedding": ("llama", {"target_modules": LLAMA, "modules_to_save": ["embed_tokens"]}),
    "orthogonal from the start": ("llama", {"target_modules": LLAMA, "init_lora_weights": "orthogonal"}),
    "only some blocks": ("llama", {"target_modules": LLAMA, "layers_to_transform": [0, 2]}),
}


def opened(base: Path, adapter: Path) -> AdaptedCheckpoint:
    model = open_checkpoint("base", base)
    return AdaptedCheckpoint("candidate math", model, open_adapter("candidate math", adapter, model))


def read(checkpoint: Checkpoint, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    into = {name: torch.full(spec.shape, torch.nan, dtype=dtype) for name, spec in checkpoint.tensors.items()}
    checkpoint.read(into)
    return into


#: Others read the same code with other names.
EVERYDAY = ("llama", "gpt2", "ranks and alphas of their own", "whole modules", "a tuned embedding")


@pytest.mark.parametrize(
    ("family", "config"),
    [pytest.param(*case, id=name, marks=[] if name in EVERYDAY else pytest.mark.slow) for name, case in CASES.items()],
)
def test_what_is_read_is_what_peft_merges(tmp_path: Path, family: checkpoints.Family, config: dict[str, Any]) -> None:
    base = checkpoints.make_family(tmp_path, family, candidates=0).base
    adapter = make_adapter(base, tmp_path / "adapter", **config)
    merged = open_checkpoint("merged", merge_with_peft(base, adapter, tmp_path / "merged"))
    checkpoint = opened(base, adapter)
    own, expected, before = read(checkpoint), read(merged), read(checkpoint.model)
    assert own.keys() == expected.keys()
    for name, tensor in own.items():
        assert torch.allclose(tensor, expected[name], rtol=0, atol=2e-6 * float(expected[name].abs().max())), name
        # Where nothing was adapted no bit is off, elsewhere much is.
        if name in checkpoint.adapter.deltas:
            assert (tensor - before[name]).norm() > 0.05 * before[name].norm()
        assert name in checkpoint.adapted_names or torch.equal(tensor, before[name])
    assert checkpoint.adapter.deltas


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_in_bfloat16_it_is_rounded_once(tmp_path: Path, stored: torch.dtype) -> None:
    base = checkpoints.make_family(tmp_path, "llama", candidates=0, hidden=64, dtype=torch.bfloat16).base
    adapter = make_adapter(base, tmp_path / "adapter", dtype=stored, target_modules=LLAMA)
    own = read(opened(base, adapter), torch.bfloat16)
    differing = {}
    for safe in (False, True):
        folder = merge_with_peft(base, adapter, tmp_path / f"safe-{safe}", dtype=torch.bfloat16, safe=safe)
        merged = read(open_checkpoint("merged", folder), torch.bfloat16)
        differing[safe] = sum(int((own[name] != merged[name]).sum()) for name in own)
    assert differing[False] <= 1e-3 * sum(tensor.numel() for tensor in own.values())
    assert differing[True] > 20 * differing[False]
    # Into a wider buffer go the same values.
    assert all(torch.equal(tensor.bfloat16(), own[name]) for name, tensor in read(opened(base, adapter)).items())
    assert all(torch.equal(t, t.bfloat16().float()) for t in read(opened(base, adapter)).values())


def test_whole_modules_are_rounded_to_the_models_dtype(tmp_path: Path) -> None:
    base = checkpoints.make_family(tmp_path, "llama", candidates=0, dtype=torch.bfloat16).base
    adapter = make_adapter(base, tmp_path / "adapter", target_modules=LLAMA, modules_to_save=["lm_head"])
    checkpoint = opened(base, adapter)
    stored = load_file(adapter / "adapter_model.safetensors")["base_model.model.lm_head.weight"]
    assert stored.dtype == torch.float32
    assert {spec.dtype for spec in checkpoint.tensors.values()} == {torch.bfloat16}
    for dtype in (torch.float32, torch.bfloat16):
        assert torch.equal(read(checkpoint, dtype)["lm_head.weight"], stored.bfloat16().to(dtype))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("stretch", [1 << 20, 1000, 70, 1])
def test_a_stretch_is_what_the_whole_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: checkpoints.Family, stretch: int
) -> None:
    monkeypatch.setattr(adapted_checkpoint, "CHUNK_VALUES", stretch)
    base = checkpoints.make_family(tmp_path, family, candidates=0, layers=1).base
    config: dict[str, Any] = {} if family == "gpt2" else {"modules_to_save": ["lm_head"]}
    checkpoint = opened(base, make_adapter(base, tmp_path / "adapter", target_modules=LINEARS[family], **config))
    generator = torch.Generator().manual_seed(stretch)
    for name, tensor in read(checkpoint).items():
        flat = tensor.view(-1)
        for _ in range(8):
            start, end = sorted(torch.randint(flat.numel() + 1, (2,), generator=generator).tolist())
            into = torch.full((end - start,), torch.nan)
            checkpoint.read_range(name, start, into)
            assert torch.equal(into, flat[start:end]), (name, start, end)


def test_a_buffer_with_fewer_rows_takes_the_first(tmp_path: Path) -> None:
    base = checkpoints.make_family(tmp_path, "llama", candidates=0, layers=1).base
    checkpoint = opened(base, make_adapter(base, tmp_path / "adapter", target_modules=["lm_head"]))
    whole, into = read(checkpoint)["lm_head.weight"], torch.full((50, 32), torch.nan)
    checkpoint.read({"lm_head.weight": into})
    assert torch.equal(into, whole[:50])


def test_infinite_factors_and_sums_are_refused(tmp_path: Path) -> None:
    base = checkpoints.make_family(tmp_path, "llama", candidates=0, layers=1, dtype=torch.float16).base
    adapter = make_adapter(base, tmp_path / "large", target_modules=["q_proj"], lora_alpha=10**7)
    with pytest.raises(InputError, match=r"candidate math: .*q_proj.weight overflow torch.float16;"):
        read(opened(base, adapter))


def test_what_several_read_is_read_once_while_it_is_kept_open(tmp_path: Path) -> None:
    base = checkpoints.make_family(tmp_path, "llama", candidates=0).base
    adapters = [make_adapter(base, tmp_path / f"{i}", seed=i, target_modules=LLAMA) for i in range(3)]
    cache = LastReadCache()
    model = SharedCheckpoint(open_checkpoint("base", base), cache)
    candidates = [AdaptedCheckpoint(f"{i}", model, open_adapter(f"{i}", a, model)) for i, a in enumerate(adapters)]
    alone = [read(opened(base, adapter)) for adapter in adapters]
    for num_times in (1, 2):
        with candidates[0].keep_open(), candidates[1].keep_open(), model.keep_open(), candidates[2].keep_open():
            for candidate, expected in zip(candidates, alone, strict=True):
                assert all(torch.equal(tensor, expected[name]) for name, tensor in read(candidate).items())
            into = torch.empty(100)
            model.read_range("lm_head.weight", 7, into)
            assert torch.equal(into, alone[0]["lm_head.weight"].view(-1)[7:107])
            assert model.num_bytes_read == num_times * model.cached_bytes(model.tensors)
        assert not cache
    for candidate in candidates:  # in stretches, with nothing else in between
        with candidate.keep_open(), model.keep_open():
            before = model.num_bytes_read
            candidate.read_range("lm_head.weight", 7, into)
            model.read_range("lm_head.weight", 7, into)
            assert model.num_bytes_read == before + 4 * into.numel()
    read(candidates[0])  # not kept open, nothing is kept
    assert not cache


def test_a_cache_holds_one_models_tensors(tmp_path: Path) -> None:
    folders = checkpoints.make_family(tmp_path, "llama", candidates=1, layers=1)
    cache = LastReadCache()
    first, second = (
        SharedCheckpoint(open_checkpoint(folder.name, folder), cache) for folder in (folders.base, *folders.candidates)
    )
    with first.keep_open(), second.keep_open():
        assert torch.equal(read(first)["lm_head.weight"], read(open_checkpoint("base", folders.base))["lm_head.weight"])
        assert {owner for owner, *_ in cache} == {first}
        read(second)
        assert {owner for owner, *_ in cache} == {second}
