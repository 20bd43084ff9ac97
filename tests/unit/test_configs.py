"""Every key of every config class, changed: whether it counts is compared with what transformers computes."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import pytest
import torch
import transformers
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

import checkpoints
from merging import make_merge
from parametrize import slow
from regstream.checkpoint.checkpoint import Checkpoint, open_checkpoint
from regstream.checkpoint.source import LOCAL
from regstream.errors import InputError
from regstream.models.config.build import build_config
from regstream.models.layered_model import LayeredModel
from regstream.validation.configs import ConfigComparison

#: Of each class of configs one checkpoint.
FAMILIES: tuple[checkpoints.Family, ...] = (
    "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "gpt2", "bert", "roberta", "vit", "clip",
    *checkpoints.DESCRIBED_FAMILIES,
)  # fmt: skip
#: Spellings that the classes no longer have as attributes, or that code looks for without their class having them.
OTHER_KEYS: dict[str, Any] = {
    "rope_theta": 777.0, "rope_scaling": {"type": "linear", "factor": 4.0}, "partial_rotary_factor": 0.5,
    "rope_local_base_freq": 77.0, "rotary_pct": 0.5, "rotary_emb_base": 777, "is_causal": False, "num_labels": 7,
    "position_embedding_type": "relative_key", "unsloth_version": "2026.1", "pretraining_tp": 2, "made_up": 3,
    "sliding_window_pattern": 1, "max_window_layers": 1, "use_sliding_window": True, "attention_bias": True,
}  # fmt: skip
#: Of no account to anyone: where the config comes from, and what is returned.
UNTOLD = {
    "transformers_version", "architectures", "dtype", "id2label", "label2id", "problem_type", "return_dict",
    "num_labels", "output_hidden_states", "use_cache", "unsloth_version", "model_type",
}  # fmt: skip


@dataclass(frozen=True)
class ConfigCase:
    """A base, and the comparison of configs with its own."""

    base: Checkpoint
    comparison: ConfigComparison
    model: PreTrainedModel

    @classmethod
    def of(cls, folder: Path, family: checkpoints.Family) -> Self:
        """The case of a small checkpoint."""
        merge = make_merge(folder, family, candidates=1, layers=2, num_rows=2)
        base = open_checkpoint("base", merge.folders.base)
        return cls(base, comparison(base), checkpoints.load(merge.folders.base, dtype=torch.float32))

    def check(self, config: Mapping[str, Any], *, base: Mapping[str, Any] | None = None) -> list[str] | str:
        """The warnings or the error for a candidate with this config; `base` replaces the config of the base."""
        checker = self.comparison if base is None else comparison(self.copy("base", "base", base))
        try:
            return checker.check(self.copy('candidate "a"', "candidate", config))
        except InputError as error:
            return str(error)

    def copy(self, label: str, name: str, config: Mapping[str, Any]) -> Checkpoint:
        """The base's tensors under another config."""
        folder = self.base.folder.with_name(name)
        return Checkpoint(
            label,
            folder,
            config=config,
            architecture=self.base.architecture,
            source=LOCAL,
            tensor_index=self.base.tensor_index,
        )

    def computed(self, config: Mapping[str, Any]) -> Tensor | None:
        """What transformers computes with the base's weights and a config; None where they do not go together."""
        try:
            built = build_config(config, Path("config.json"), self.base.architecture.model_type)
            made = getattr(transformers, self.base.architecture.model_class)
            model = (getattr(made, "from_config", None) or made._from_config)(built, dtype=torch.float32)
            found = model.load_state_dict(self.model.state_dict(), strict=False)
            return None if found.missing_keys or found.unexpected_keys else output_of(model)
        except Exception:
            return None


def comparison(base: Checkpoint) -> ConfigComparison:
    model = LayeredModel(base.architecture, base.model_config, dtype=torch.float32, device=torch.device("cpu"))
    return ConfigComparison(base, model)


@torch.no_grad()
def output_of(model: PreTrainedModel) -> Tensor:
    """Logits, or hidden states, of rows that are longer than the windows."""
    model.train(False)
    if model.main_input_name == "pixel_values":
        images: Tensor = model(pixel_values=checkpoints.random_images(2, seed=1), return_dict=False)[0]
        return images
    rows = torch.tensor(checkpoints.random_rows(checkpoints.VOCABULARY, [20, 20], seed=1))
    mask = torch.ones_like(rows)
    mask[1, 12:] = 0
    output = model(input_ids=rows, attention_mask=mask, use_cache=False, return_dict=False)[0]
    return torch.cat([output[0], output[1, :12]])


MakeCase = Callable[[checkpoints.Family], ConfigCase]


@pytest.fixture(scope="module")
def make_case(tmp_path_factory: pytest.TempPathFactory) -> MakeCase:
    @cache
    def case(family: checkpoints.Family) -> ConfigCase:
        return ConfigCase.of(tmp_path_factory.mktemp(family), family)

    return case


def changes(config: PreTrainedConfig) -> Iterator[tuple[str, Any]]:
    """Each key of a config with another value, or several where it has none."""
    for key, value in vars(config).items():
        if key.startswith("_"):
            continue
        for other in others(key, value):
            yield key, other
    yield from ((key, value) for key, value in OTHER_KEYS.items() if key not in vars(config))


def others(key: str, value: Any) -> list[Any]:
    """Other values for a key."""
    text = "relu" if "act" in key and value != "relu" else "tanh" if "act" in key else "else"
    found: list[Any]
    match value:
        case bool():
            found = [not value]
        case int():
            found = [value + 1, 2 * value]
        case float():
            found = [2 * value + 0.125]
        case str():
            found = [text]
        case list():
            found = [value[::-1], [*value[:-1], *value[:1]]]
        case dict():
            found = [value | {"rope_theta": 777.0}, value | {"rope_type": "linear", "factor": 4.0}]
        case _:
            found = [4, 0.5, True, ["a"]]
    if key in ("id2label", "label2id", "dtype"):
        found = [{"0": "a", "1": "b", "2": "c"}] if key == "id2label" else []
    return [other for other in found if other != value]


def is_told(told: list[str], key: str) -> bool:
    return key in UNTOLD or any(key in line for line in told)


@pytest.mark.parametrize("family", ["llama", *(slow(family) for family in FAMILIES if family != "llama")])
def test_a_key_that_changes_what_is_computed_is_refused_and_any_other_is_told(
    make_case: MakeCase, family: checkpoints.Family
) -> None:
    case = make_case(family)
    content = dict(case.base.config)
    expected = case.computed(content)
    assert expected is not None
    num_refused, wrong = 0, []
    for key, value in changes(case.base.model_config):
        config = content | {key: value}
        told = case.check(config)
        if isinstance(told, str):
            num_refused += 1
            assert told.startswith(f'candidate "a": {case.base.folder.with_name("candidate")}/config.json: ')
            continue
        computed = case.computed(config)  # None where weights do not fit, which their shapes tell
        is_same = computed is None or torch.allclose(computed, expected, rtol=1e-4, atol=1e-5)
        if not (is_same and is_told(told, key)):
            wrong.append((key, value, is_same, told))
    assert not wrong
    assert num_refused > 5


def old_spelling(config: Mapping[str, Any]) -> dict[str, Any]:
    """What transformers 4 would have written."""
    table: Any = config.get("rope_parameters")
    old = {key: value for key, value in config.items() if key not in ("rope_parameters", "dtype")}
    old |= {"torch_dtype": "float32", "transformers_version": "4.51.0"}
    if config["model_type"] == "gpt_neox":
        return old | {"rotary_emb_base": int(table["rope_theta"]), "rotary_pct": table["partial_rotary_factor"]}
    if config["model_type"] == "gemma3_text":
        full, sliding = table["full_attention"], table["sliding_attention"]
        return old | {"rope_theta": full["rope_theta"], "rope_local_base_freq": sliding["rope_theta"]}
    return old | {key: value for key, value in (table or {}).items() if key != "rope_type"}


def with_theta(config: Mapping[str, Any], theta: float) -> dict[str, Any]:
    """The same with another base of its rotary embeddings."""
    table = json.loads(json.dumps(config["rope_parameters"]))
    for entry in [table, *(value for value in table.values() if isinstance(value, dict))]:
        if "rope_theta" in entry:
            entry["rope_theta"] = theta
    return {**config, "rope_parameters": table}


@pytest.mark.parametrize("family", [f if f in ("llama", "gpt_neox") else slow(f) for f in FAMILIES])
def test_both_versions_spellings_of_a_config_agree(make_case: MakeCase, family: checkpoints.Family) -> None:
    case = make_case(family)
    new = dict(case.base.config)
    if family == "gpt_neox":  # a quarter of these heads has one frequency, which is the same for each base
        new["rope_parameters"] |= {"partial_rotary_factor": 1.0}
    old = old_spelling(new)
    assert case.check(old, base=new) == []
    assert case.check(new, base=old) == []
    if "rope_parameters" in new:
        other = with_theta(new, 777.0)
        for candidate, base in ((other, new), (other, old), (old_spelling(other), new), (old_spelling(other), old)):
            refusal = case.check(candidate, base=base)
            assert isinstance(refusal, str)
            assert " is 777" in refusal


LONG = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [1.0] * 4}
PART = LONG | {"short_factor": [1.0] * 2, "long_factor": [1.0] * 2}
LONG_OF_OLD = {"type": "longrope", "short_factor": [1] * 4, "long_factor": [1] * 4}
#: A family, a base's keys and a candidate's, and what is told of the candidate.
AGREEING: dict[str, tuple[checkpoints.Family, dict[str, Any], dict[str, Any], str | None]] = {
    "heads' width left out": ("llama", {}, {"head_dim": None}, None),
    "key heads left out": ("llama", {"num_key_value_heads": 4}, {"num_key_value_heads": None}, None),
    "an alias of an activation": ("llama", {}, {"hidden_act": "swish"}, None),
    "another formula of an activation": ("gpt2", {}, {"activation_function": "gelu_pytorch_tanh"}, None),
    "the inner width said": ("gpt2", {"n_inner": None}, {"n_inner": 128}, "n_inner"),
    "rotary embeddings without a type": ("llama", {}, {"rope_parameters": {"rope_theta": 10000}}, None),
    "a type under its old name": ("llama", {}, {"rope_parameters": {"type": "default", "rope_theta": 1e4}}, None),
    "both spellings that agree": ("llama", {}, {"rope_theta": 10000}, None),
    "a window that is not used": (
        "qwen2", {"use_sliding_window": False}, {"sliding_window": 4096, "max_window_layers": 21}, "sliding_window"
    ),
    "a longer text": ("llama", {}, {"max_position_embeddings": 9999}, "max_position_embeddings"),
    "another end of text, no padding": ("llama", {}, {"eos_token_id": [2, 3], "pad_token_id": None}, "eos_token_id"),
    "infinity as transformers writes it": (
        "llama", {"made_up": {"__float__": "Infinity"}}, {"made_up": float("inf")}, None
    ),
    "a width that its class derives": ("qwen2", {}, {"head_dim": 8}, "head_dim"),
    "a width that its class derives, left out": ("qwen2", {"head_dim": 8}, {"head_dim": ...}, "head_dim"),
    "a factor of rotary embeddings that are not scaled": (
        "llama", {}, {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "factor": 2}}, "factor"
    ),
    "two ranges of rotary embeddings, of old": (
        "phi3",
        {"rope_parameters": LONG | {"original_max_position_embeddings": 64}, "original_max_position_embeddings": 64},
        {"rope_parameters": ..., "rope_theta": 10000, "rope_scaling": LONG_OF_OLD},
        None,
    ),
    "windows beyond the longest text": (
        "mistral", {"sliding_window": 4096, "max_position_embeddings": 256}, {"sliding_window": None}, "sliding_window"
    ),
    "what transformers 4 wrote of every model": (
        "clip", {"pad_token_id": None, "is_decoder": False, "pruned_heads": {}, "prefix": None}, {
            "pad_token_id": ..., "is_decoder": ..., "pruned_heads": ..., "prefix": ...
        }, None
    ),
    "longrope under its first name": (
        "phi3",
        {"rope_parameters": LONG | {"original_max_position_embeddings": 64}, "original_max_position_embeddings": 64},
        {"rope_parameters": ..., "rope_theta": 10000, "rope_scaling": LONG_OF_OLD | {"type": "su"}},
        None,
    ),
    "a part of rotary embeddings beside their scaling, of old": (
        "phi3",
        {
            "rope_parameters": PART | {"original_max_position_embeddings": 64, "partial_rotary_factor": 0.5},
            "original_max_position_embeddings": 64,
        },
        {
            "rope_parameters": ..., "rope_theta": 10000, "partial_rotary_factor": 0.5,
            "rope_scaling": {"type": "longrope", "short_factor": [1] * 2, "long_factor": [1] * 2},
        },
        None,
    ),
    "what equals the class's default left out": ("llama", {"rms_norm_eps": 1e-6}, {"rms_norm_eps": ...}, None),
}  # fmt: skip


@pytest.mark.parametrize(("family", "base", "candidate", "named"), AGREEING.values(), ids=AGREEING)
def test_configs_that_make_the_same_blocks_agree(
    make_case: MakeCase, family: checkpoints.Family, base: dict[str, Any], candidate: dict[str, Any], named: str | None
) -> None:
    case = make_case(family)
    config = {key: value for key, value in {**case.base.config, **base, **candidate}.items() if value is not ...}
    told = case.check(config, base={**case.base.config, **base})
    assert (told == []) if named is None else (isinstance(told, list) and len(told) == 1 and named in told[0])


DISAGREEING: dict[str, tuple[checkpoints.Family, dict[str, Any], dict[str, Any], str]] = {
    "an epsilon": ("llama", {}, {"rms_norm_eps": 1e-3}, "rms_norm_eps is 0.001, where the base has 1e-06"),
    "by the class's default": ("mistral", {}, {"sliding_window": ...}, "sliding_window is 4096 (not in the file)"),
    "two spellings that do not agree": (
        "llama", {}, {"rope_theta": 5e5}, "rope_theta is 500000.0 beside another value, which transformers uses, where"
    ),
    "scaling of old": (
        "llama",
        {},
        {"rope_parameters": ..., "rope_scaling": {"type": "linear", "factor": 4.0}},
        "rope_scaling.factor is 4.0, where the base has none",
    ),
    "the far end of rotary embeddings": (
        "phi3",
        {"rope_parameters": LONG, "original_max_position_embeddings": 64},
        {"rope_parameters": {**LONG, "long_factor": [2.0] * 4}},
        "rope_parameters.long_factor is [2.0, 2.0, 2.0, 2.0]",
    ),
    "the length that scales them": (
        "phi3",
        {"rope_parameters": LONG, "original_max_position_embeddings": 64},
        {"max_position_embeddings": 512},
        "max_position_embeddings is 512, where the base has 256",
    ),
    "attention both ways": ("llama", {}, {"is_causal": False}, "is_causal is false, where the base has none"),
    "a window that is used": (
        "qwen2",
        {},
        {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0, "layer_types": ...},
        'layer_types is ["sliding_attention", "sliding_attention"] (not in the file), where the base has ["f',
    ),
    "a window within the longest text": ("mistral", {}, {"sliding_window": None}, "sliding_window is null, where the"),
    "an activation by its own name": (
        "gpt2", {}, {"activation_function": "relu"}, 'activation_function is "relu", where the base has "gelu_new"'
    ),
    "the head's cap": ("gemma2", {}, {"final_logit_softcapping": 7.0}, "final_logit_softcapping is 7.0"),
    "a tie": ("llama", {}, {"tie_word_embeddings": True}, "tie_word_embeddings is true, where the base has false"),
    "positions by padding": ("roberta", {}, {"pad_token_id": 5}, "pad_token_id is 5, where the base has 0"),
    "one layer's own epsilon": (
        "llama", {}, {"per_layer_config": {"1": {"rms_norm_eps": 0.1}}}, 'per_layer_config is {"1": {"rms_norm_eps"'
    ),
    "a decoder": ("bert", {}, {"is_decoder": True}, "is_decoder is true, where the base has false"),
}  # fmt: skip


@pytest.mark.parametrize(("family", "base", "candidate", "expected"), DISAGREEING.values(), ids=DISAGREEING)
def test_configs_that_make_other_blocks_are_refused_by_key_and_values(
    make_case: MakeCase, family: checkpoints.Family, base: dict[str, Any], candidate: dict[str, Any], expected: str
) -> None:
    case = make_case(family)
    config = {key: value for key, value in {**case.base.config, **base, **candidate}.items() if value is not ...}
    told = case.check(config, base={**case.base.config, **base})
    assert isinstance(told, str)
    assert expected in told
    assert "\n" not in told


def test_attention_of_a_package_is_named_with_what_is_used_instead(make_case: MakeCase) -> None:
    asked = {**make_case("llama").base.config, "_attn_implementation": "flash_attention_2"}
    base = make_case("llama").copy("base", "base", asked)
    assert comparison(base).base_warnings() == [
        "base: config.json: _attn_implementation = flash_attention_2: needs an extra package; sdpa is used instead"
    ]
    assert make_case("llama").comparison.base_warnings() == []


def test_a_head_that_is_missing_is_told_with_the_key_that_unties_it(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, "llama-tied", candidates=1, layers=1, num_rows=2)
    path = merge.folders.base / "config.json"
    content = json.loads(path.read_text())
    del content["tie_word_embeddings"]  # Llama's default is false
    path.write_text(json.dumps(content))
    with pytest.raises(
        InputError, match=r"^base: .*tie_word_embeddings is absent.* tensor lm_head.weight is not in the"
    ):
        merge.plan()
