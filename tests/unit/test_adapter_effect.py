"""Adapters that do less than their config says: named in a line, and merged as peft merges them."""

import copy
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor

import checkpoints
from adapters import make_adapter
from altered_checkpoints import Change, Tensors, edited, write_manifest
from regstream.checkpoint.adapter import open_adapter
from regstream.checkpoint.checkpoint import open_checkpoint
from regstream.errors import InputError
from regstream.manifest.read_manifest import read_manifest
from regstream.planning.plan import Plan
from regstream.planning.planning import make_plan
from regstream.runtime.scheduler import run

PREFIX = "base_model.model."
Q, V = "model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.v_proj"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base, and an adapter on two linears of its two blocks."""
    folder = tmp_path_factory.mktemp("effect")
    base = checkpoints.make_family(folder, "llama", candidates=0, layers=2, hidden=16).base
    return base, make_adapter(base, folder / "adapter", target_modules=["q_proj", "v_proj"])


def planned(folder: Path, base: Path, adapter: Path, merge: str = "") -> Plan:
    """A merge of the base with an adapter on it; lines on what else the adapter was made for are left away."""
    return make_plan(read_manifest(write_manifest(folder, base, base, merge=merge, adapters={base.name: adapter})))


def warnings(folder: Path, base: Path, adapter: Path, merge: str = "") -> list[str]:
    return [line.removeprefix('candidate "task0": ') for line in planned(folder, base, adapter, merge).warnings]


def dropped(*parts: str) -> Change:
    return lambda t: [t.pop(name) for name in list(t) if all(part in name for part in parts)]


def zeroed(part: str) -> Change:
    return lambda t: [tensor.zero_() for name, tensor in t.items() if part in name]


def test_nothing_is_said_of_an_adapter_that_does_what_it_says(folders: tuple[Path, Path], tmp_path: Path) -> None:
    assert warnings(tmp_path, *folders) == []


@pytest.mark.parametrize(
    ("change", "config", "reason"),
    [
        (zeroed("lora_B"), {}, "all factors B are zero"),
        (zeroed("lora_A"), {}, "all factors A are zero"),
        (dropped(""), {}, "its file holds no factors for the model"),
        (len, {"lora_alpha": 0}, "alpha is 0"),
        (len, {"alpha_pattern": {"q_proj": 0, "v_proj": 0}}, "alpha is 0"),
    ],
)
def test_an_adapter_that_changes_nothing_is_named_with_the_reason(
    folders: tuple[Path, Path], tmp_path: Path, change: Change, config: dict[str, object], reason: str
) -> None:
    adapter = edited(folders[1], tmp_path / "adapter", change, config)
    (line,) = warnings(tmp_path, folders[0], adapter)
    assert line == f"its adapter changes nothing: {reason}; was its training lost in saving?"


def test_factors_of_one_weight_that_are_not_zero_are_something(folders: tuple[Path, Path], tmp_path: Path) -> None:
    assert warnings(tmp_path, folders[0], edited(folders[1], tmp_path / "a", zeroed("layers.0."))) == []


def test_an_alpha_of_zero_for_some_is_named(folders: tuple[Path, Path], tmp_path: Path) -> None:
    adapter = edited(folders[1], tmp_path / "adapter", config={"alpha_pattern": {"v_proj": 0}})
    (line,) = warnings(tmp_path, folders[0], adapter)
    assert line.startswith("its adapter changes nothing in model.layers.*.self_attn.v_proj.weight (2 tensors): alpha")


@pytest.mark.parametrize(
    ("change", "config", "missing"),
    [
        (dropped("layers.1."), {}, [Q, V]),
        (dropped("layers.1.", "v_proj"), {}, [V]),
        (dropped("layers.1.", "v_proj"), {"target_modules": ".*(q|v)_proj"}, [V]),
        (dropped("layers.1.", "v_proj"), {"target_modules": None}, [V]),
        (len, {"target_modules": ["self_attn.q_proj", "o_proj"]}, ["model.layers.*.self_attn.o_proj"]),
        (dropped("layers.1."), {"layers_to_transform": [0]}, []),
        (dropped("layers.1."), {"layers_to_transform": 0}, []),
    ],
)
def test_weights_that_target_modules_name_and_that_have_no_factors_are_named(
    folders: tuple[Path, Path], tmp_path: Path, change: Change, config: dict[str, object], missing: list[str]
) -> None:
    adapter = edited(folders[1], tmp_path / "adapter", change, config)
    lines = warnings(tmp_path, folders[0], adapter)
    assert len(lines) == bool(missing)
    for module in missing:
        assert f"{module.replace('.1.', '.*.')}.weight" in lines[0]
        assert "holds no factors" in lines[0]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (PREFIX, PREFIX + PREFIX),
        (PREFIX, ""),
        (PREFIX, f"{PREFIX}_orig_mod."),
    ],
)
def test_names_that_peft_does_not_find_are_refused_with_those_that_it_would(
    folders: tuple[Path, Path], tmp_path: Path, before: str, after: str
) -> None:
    def rename(tensors: Tensors) -> None:
        for name in list(tensors):
            tensors[name.replace(before, after, 1)] = tensors.pop(name)

    adapter = edited(folders[1], tmp_path / "adapter", rename)
    message = (
        f"has no weight for: .*; peft does not find it either; if {PREFIX}model.layers.0.self_attn.q_proj.lora_A.w"
    )
    with pytest.raises(InputError, match=message):
        planned(tmp_path, folders[0], adapter)


def test_names_of_a_state_dict_are_read_as_peft_reads_them(folders: tuple[Path, Path], tmp_path: Path) -> None:
    def rename(tensors: Tensors) -> None:
        for name in list(tensors):
            tensors[name.replace(".weight", ".default.weight")] = tensors.pop(name)

    base = open_checkpoint("base", folders[0])
    adapter = open_adapter("candidate", edited(folders[1], tmp_path / "adapter", rename), base)
    assert adapter.deltas == open_adapter("candidate", folders[1], base).deltas


def test_an_adapter_on_a_layer_that_is_not_merged_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    name, config = "model.layers.2.self_attn.q_proj", {"num_nextn_predict_layers": 1}
    base = edited(folders[0], tmp_path / "base", lambda t: t.update({f"{name}.weight": t[f"{Q}.weight"] + 1}), config)

    def add(tensors: Tensors) -> None:
        for factor in ("lora_A", "lora_B"):
            tensors[f"{PREFIX}{name}.{factor}.weight"] = tensors[f"{PREFIX}{Q}.{factor}.weight"].clone()

    with pytest.raises(InputError, match=f"changes {name}.weight, which is not in the model"):
        planned(tmp_path, base, edited(folders[1], tmp_path / "adapter", add))


def test_names_of_the_model_without_its_head_are_read_and_said(folders: tuple[Path, Path], tmp_path: Path) -> None:
    def shorten(tensors: Tensors) -> None:
        for name in list(tensors):
            tensors[name.replace(f"{PREFIX}model.", PREFIX)] = tensors.pop(name)

    base, adapter = folders
    short = edited(adapter, tmp_path / "short", shorten)
    line = "its adapter: names are those of a model without a head: layers.0.self_attn.q_proj is read as model.layers."
    assert [found.startswith(line) for found in warnings(tmp_path, base, short)] == [True]
    shards = []
    for number, folder in enumerate((short, adapter)):
        (tmp_path / str(number)).mkdir()
        plan = planned(tmp_path / str(number), base, folder)
        run(plan)
        shards.append((plan.output / plan.steps[1].shard).read_bytes())
    assert shards[0] == shards[1]


def grown(base: Path, folder: Path) -> Path:
    """An adapter with whole embeddings and head, of a model that was given more rows of vocabulary before."""
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    model.resize_token_embeddings(checkpoints.VOCABULARY + 8, mean_resizing=False)
    saved = ["embed_tokens", "lm_head"]
    return make_adapter(base, folder, model=copy.deepcopy(model), target_modules=["q_proj"], modules_to_save=saved)


def test_whole_modules_of_a_grown_model_are_cut_to_the_bases_rows(folders: tuple[Path, Path], tmp_path: Path) -> None:
    adapter = grown(folders[0], tmp_path / "adapter")
    with pytest.raises(InputError, match=r'has 296 rows of vocabulary, the base 288; .* vocabulary = "base"'):
        planned(tmp_path, folders[0], adapter)
    plan = planned(tmp_path, folders[0], adapter, '[merge.others]\nvocabulary = "base"\n')
    assert [line for line in plan.warnings if "left out of its adapter" in line and "4 tensors" in line]
    run(plan)
    whole: dict[str, Tensor] = load_file(adapter / "adapter_model.safetensors")
    result = load_file(plan.output / plan.steps[0].shard)
    expected = whole[f"{PREFIX}model.embed_tokens.weight"][: checkpoints.VOCABULARY]
    torch.testing.assert_close(result["model.embed_tokens.weight"], expected)


def test_a_head_that_is_tied_has_no_adapter_of_its_own(tmp_path: Path) -> None:
    base = checkpoints.make_family(tmp_path, "llama-tied", candidates=0, layers=1, hidden=16).base
    adapter = make_adapter(base, tmp_path / "adapter", target_modules=["q_proj", "lm_head"])
    with pytest.raises(
        InputError, match="a head that is tied to the embeddings has none of its own: merge the adapter"
    ):
        planned(tmp_path, base, adapter)
