"""An adapter's config and header: what is understood, and what is refused in one line before any work."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import checkpoints
from adapters import LINEARS, make_adapter
from regstream.checkpoint.adapter import Adapter, open_adapter
from regstream.checkpoint.adapter_config import read_adapter_config
from regstream.checkpoint.checkpoint import open_checkpoint
from regstream.errors import InputError

Tensors = dict[str, Tensor]
FIRST = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base and an adapter for it."""
    folder = tmp_path_factory.mktemp("adapter")
    base = checkpoints.make_family(folder, "llama", candidates=0, layers=2).base
    return base, make_adapter(base, folder / "adapter", target_modules=LINEARS["llama"], modules_to_save=["lm_head"])


@pytest.fixture
def base(folders: tuple[Path, Path]) -> Path:
    """The base."""
    return folders[0]


@pytest.fixture
def adapter(folders: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy of the adapter."""
    return shutil.copytree(folders[1], tmp_path / "copy")


def opened(base: Path, adapter: Path) -> Adapter:
    return open_adapter("candidate math", adapter, open_checkpoint("base", base))


def with_config(adapter: Path, **keys: Any) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))


def with_tensors(adapter: Path, edit: Callable[[Tensors], object]) -> None:
    file = adapter / "adapter_model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    edit(tensors)
    save_file(tensors, file, {"format": "pt"})


def test_what_it_says(base: Path, adapter: Path) -> None:
    found = opened(base, adapter)
    assert len(found.deltas) == 6
    assert found.replacements == {"lm_head.weight": "base_model.model.lm_head.weight"}
    assert found.ignored_names == ()
    product = found.deltas["model.layers.0.self_attn.q_proj.weight"]
    assert (product.a, product.b) == (f"{FIRST}.lora_A.weight", f"{FIRST}.lora_B.weight")
    assert (product.rank, product.scale, product.transposed) == (4, 1.5, False)
    assert found.num_bytes_read == 0


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"peft_type": "IA3"}, 'peft_type is "IA3"; only LORA adapters are applied'),
        ({"peft_type": None}, "peft_type is null; only LORA"),
        ({"use_dora": True}, "use_dora is true, which is not applied; merge the adapter into its model with peft"),
        ({"lora_bias": True}, "lora_bias is true, which is not applied"),
        ({"bias": "all"}, 'bias is "all"; tuned biases are not applied'),
        ({"bias": "lora_only"}, 'bias is "lora_only"; tuned biases'),
        ({"layer_replication": [[0, 2], [1, 2]]}, "layer_replication is .* which is not applied"),
        ({"target_parameters": ["experts.gate_up_proj"]}, "target_parameters is .* which is not applied"),
        ({"trainable_token_indices": [1, 2]}, "trainable_token_indices is .* which is not applied"),
        ({"alora_invocation_tokens": [5]}, "alora_invocation_tokens is .* which is not applied"),
        ({"use_qalora": True}, "use_qalora is true"),
        ({"megatron_config": {"a": 1}}, "megatron_config is"),
        ({"kasa_config": {"beta": 1}}, "kasa_config is"),
        ({"of_a_later_version": {"x": 1}}, "of_a_later_version is .* which is not applied"),
        (
            {"init_lora_weights": "pissa_niter_4"},
            'init_lora_weights is "pissa_niter_4", which changes the model\'s own',
        ),
        ({"init_lora_weights": "loftq"}, 'init_lora_weights is "loftq"'),
        ({"r": 0}, "adapter_config.json: r: .*, found 0"),
        ({"r": "8"}, 'adapter_config.json: r: .*, found "8"'),
        ({"lora_alpha": None}, "lora_alpha: .*, found null"),
        ({"rank_pattern": {"q_proj": -1}}, "rank_pattern.q_proj: .*, found -1"),
        ({"alpha_pattern": {"q_proj(": 1}}, r'"q_proj\(" is not a regular expression'),
        ({"use_rslora": "yes"}, 'use_rslora: .*, found "yes"'),
        ({"modules_to_save": "lm_head"}, 'modules_to_save: .*, found "lm_head"'),
        ({"r": 8}, r"down_proj.lora_A.weight is \[4, 64\], lora_B.weight is \[32, 4\]; .* of rank 8 in"),
        (
            {"rank_pattern": {"v_proj": 2}},
            r"v_proj.lora_A.weight is .*of rank 2 in adapter_config.json and of model.lay",
        ),
    ],
)
def test_another_config_is_refused(base: Path, adapter: Path, keys: dict[str, Any], message: str) -> None:
    with_config(adapter, **keys)
    with pytest.raises(InputError, match=f"^candidate math: .*{message}") as caught:
        opened(base, adapter)
    assert "\n" not in str(caught.value)


def _renamed(before: str, after: str) -> Callable[[Tensors], object]:
    def edit(tensors: Tensors) -> None:
        for name in [name for name in tensors if before in name]:
            tensors[name.replace(before, after)] = tensors.pop(name)

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.pop(f"{FIRST}.lora_B.weight"), f"holds {FIRST}.lora_A.weight, and no {FIRST}.lora_B.weight"),
        (lambda t: t.pop(f"{FIRST}.lora_A.weight"), f"holds {FIRST}.lora_B.weight, and no {FIRST}.lora_A.weight"),
        (_renamed("layers.1.", "layers.9."), "base, .* has no weight for: .*down_proj.lora_A.weight, .* and 3 more"),
        (_renamed("lm_head", "lm_tail"), "base, the model of the adapter, has no weight for: .*lm_tail.weight"),
        (_renamed("base_model.model.", ""), "has no weight for"),
        (_renamed("q_proj.lora_A.weight", "q_proj.lora_embedding_A"), "lora_embedding_A is a factor of an embedding"),
        (_renamed("q_proj.lora_A.weight", "q_proj.lora_magnitude_vector"), "is a magnitude of DoRA, which is not"),
        (_renamed("q_proj.lora_A.weight", "q_proj.lora_B.bias"), "is a bias of a factor"),
        (_renamed("q_proj.lora_A.weight", "q_proj.lora_A2.weight"), "is a factor of another kind"),
        (lambda t: t.update({f"{FIRST}.base_layer.bias": torch.zeros(3)}), "is a tuned parameter beside factors"),
        (lambda t: t.update({f"{FIRST}.weight": torch.ones(32, 32)}), "model.safetensors: .* both for .*; remove one"),
        (lambda t: t.update({f"{FIRST}.lora_A.weight": torch.zeros(4, 31)}), r"is \[4, 31\], .* is \[32, 4\]"),
        (lambda t: t.update({f"{FIRST}.lora_B.weight": torch.zeros(31, 4)}), r"is \[31, 4\]; .* of rank 4 in"),
        (lambda t: t.update({f"{FIRST}.lora_A.weight": torch.zeros(4, 32, 1, 1)}), r"\[4, 32, 1, 1\]"),
        (lambda t: t.update({f"{FIRST}.lora_A.weight": torch.zeros(4, 32).int()}), "is torch.int32; expected floating"),
    ],
)  # fmt: skip
def test_other_tensors_are_refused(base: Path, adapter: Path, edit: Callable[[Tensors], object], message: str) -> None:
    with_tensors(adapter, edit)
    with pytest.raises(InputError, match=f"^candidate math: .*{message}"):
        opened(base, adapter)


def test_what_is_no_adapter_is_refused(base: Path, adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(InputError, match=r"found only adapter_model.bin, which is pickled and is not read"):
        opened(base, adapter)
    (adapter / "adapter_model.bin").unlink()
    with pytest.raises(InputError, match=r"expected adapter_model.safetensors, found none"):
        opened(base, adapter)
    for text, message in (("{", "no JSON"), ("[]", "expected a JSON object")):
        (adapter / "adapter_config.json").write_text(text)
        with pytest.raises(InputError, match=f"adapter_config.json: {message}"):
            opened(base, adapter)
    with pytest.raises(InputError, match=r"holds config.json and no adapter_config.json: it is a whole model"):
        opened(base, base)
    (adapter / "adapter_config.json").unlink()
    (adapter / "checkpoint-9").mkdir()
    (adapter / "checkpoint-9/adapter_config.json").write_text("{}")
    with pytest.raises(
        InputError, match=r"json: No such file .*; expected the folder of a PEFT adapter; checkpoint-9 in it holds one"
    ):
        opened(base, adapter)


def test_heads_of_tasks_and_other_towers_are_left_out(tmp_path: Path) -> None:
    import transformers

    base = checkpoints.make_family(tmp_path, "bert", candidates=0, layers=1).base
    classifier = transformers.AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
    adapter = make_adapter(base, tmp_path / "adapter", model=classifier, target_modules=["query"], task_type="SEQ_CLS")
    for _ in range(2):
        found = opened(base, adapter)
        assert found.ignored_names == ("base_model.model.classifier.bias", "base_model.model.classifier.weight")
        assert found.deltas.keys() == {"encoder.layer.0.attention.self.query.weight"}
        with_config(adapter, modules_to_save=None)  # as older versions of peft write it
    full = checkpoints.make_family(tmp_path / "clip", "clip-full", candidates=0, layers=1).base
    whole = transformers.CLIPModel.from_pretrained(full)
    adapter = make_adapter(full, tmp_path / "clip-adapter", model=whole, target_modules=["q_proj"])
    found = opened(full, adapter)
    assert found.deltas.keys() == {"encoder.layers.0.self_attn.q_proj.weight"}
    assert len(found.ignored_names) == 4
    assert all(".text_model.encoder.layers." in name for name in found.ignored_names)


def test_what_trainers_add_and_other_spellings_change_nothing(adapter: Path) -> None:
    before = read_adapter_config(adapter).scale("q_proj")
    with_config(adapter, unsloth_fixed=True, init_lora_weights="Gaussian", of_a_later_version=None, another={})
    assert read_adapter_config(adapter).scale("q_proj") == before


def test_the_config_of_an_older_version_is_read(adapter: Path) -> None:
    old = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "bias": "none", "enable_lora": None, "merge_weights": False}
    (adapter / "adapter_config.json").write_text(json.dumps(old))
    assert read_adapter_config(adapter).scale("model.layers.0.self_attn.q_proj") == 2


def test_patterns_are_matched_as_peft_matches_them(adapter: Path) -> None:
    from peft.utils.other import get_pattern_key

    patterns = {"^model.layers.0": 1, "layers.1.q_proj": 2, "q_proj": 3, r".*\.(k|v)_proj": 4, "o_pro": 5}
    with_config(adapter, rank_pattern=patterns)
    config = read_adapter_config(adapter)
    for module in (
        "model.layers.0.q_proj",
        "model.layers.1.q_proj",
        "a.v_proj",
        "v_proj",
        "o_proj",
        "xq_proj",
        "q_proj",
    ):
        assert config.rank(module) == patterns.get(get_pattern_key(list(patterns), module), 4)
