"""Vision-language models merged from rows of text and images: equal to the dense reference, loaded, and generating."""

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

import dense_any
from merging import Merge, worst_difference
from multimodal import VisionLanguage, load_model, make_vision_language_merge
from parametrize import grid
from regstream.api import verify
from tiny_models.model import TinyModel
from tiny_models.registry import TINY_MODELS

TOLERANCE = 1e-4
#: The tiny model that says where the blocks of a kind are.
DESCRIBED: dict[VisionLanguage, str] = {"qwen2_5_vl": "qwen2_vl", "gemma3": "gemma3", "llava": "llava"}
ALL_AVERAGED = "[merge.others]\n" + "".join(
    f'{part} = "average"\n' for part in ("embeddings", "final_norm", "head", "towers")
)


def expected(merge: Merge, kind: VisionLanguage) -> dict[str, Tensor]:
    model: TinyModel = TINY_MODELS[DESCRIBED[kind]]
    candidates = [load_model(folder, kind) for folder in merge.folders.candidates]
    for candidate in candidates:
        candidate.config.use_cache = candidate.config.get_text_config().use_cache = False
    rows = [
        [{name: as_double(value) for name, value in row.items()} for row in of_candidate] for of_candidate in merge.rows
    ]
    return dense_any.merge(model, candidates, rows).tensors


def as_double(value: Tensor) -> Tensor:
    return value.double() if value.is_floating_point() else value


@pytest.mark.simulated
@pytest.mark.parametrize("kind", grid({("qwen2_5_vl",), ("gemma3",)}, get_args(VisionLanguage)))
def test_a_merge_from_text_and_images_is_the_reference(tmp_path: Path, kind: VisionLanguage) -> None:
    merge = make_vision_language_merge(tmp_path, kind, merge=ALL_AVERAGED)
    result = dense_any.tensors_of(load_model(merge.run(), kind))
    difference, worst = worst_difference(result, expected(merge, kind))
    assert difference <= TOLERANCE, f"{worst}: {difference:.1e}"
    assert verify(merge.output).problems == ()


@pytest.mark.parametrize("kind", grid({("qwen2_5_vl",), ("gemma3",)}, get_args(VisionLanguage)))
def test_the_result_generates_from_an_image(tmp_path: Path, kind: VisionLanguage) -> None:
    merge = make_vision_language_merge(tmp_path, kind)
    model: Any = load_model(merge.run(), kind, torch.float32)
    for row in merge.rows[0]:
        inputs = {name: value.float() if value.is_floating_point() else value for name, value in row.items()}
        generated = model.generate(**inputs, max_new_tokens=3, do_sample=False)
        assert generated.shape[1] > row["input_ids"].shape[1]
