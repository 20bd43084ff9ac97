"""More architectures, derived or described in full by the manifest: merged alike, equal to the dense reference."""

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

import checkpoints
import reference
from architectures import TABLES
from merging import Merge, make_merge, read_result, worst_difference
from parametrize import slow
from regstream.api import verify
from regstream.errors import ResumeError
from regstream.output.record import read_provenance

TOLERANCE = 1e-4
#: As for other encoders all is a mean; the reference has CLIP's published way for images.
OTHERS: dict[checkpoints.Family, Any] = {"siglip": {"final_norm": "average"}}
PIPELINES = {"megatron-bert": "feature-extraction", "siglip": "image-feature-extraction"}


def of_the_description(merge: Merge) -> list[str]:
    """What a plan warns of, but for the random candidates' own embeddings and heads."""
    return [line for line in merge.plan().warnings if "[merge.others]" not in line]


@pytest.mark.parametrize(
    ("family", "method", "by"),
    [
        ("olmo2", "regmean++", "derived"),
        *(slow(family, "regmean++", "described") for family in checkpoints.DESCRIBED_FAMILIES),
        slow("megatron-bert", "regmean", "derived"),
    ],
)
def test_it_is_merged_as_by_the_dense_reference(
    tmp_path: Path, family: checkpoints.Family, method: reference.Method, by: str
) -> None:
    # Five blocks: a stand-in that returned less than its block would be noticed behind the third.
    table = TABLES[family] if by == "described" else ""
    merge = make_merge(tmp_path, family, layers=5, merge={"method": method}, architecture=table)
    assert of_the_description(merge) == []
    result = read_result(merge.run())
    difference, name = worst_difference(result, merge.reference(method, others=OTHERS.get(family)))
    assert difference <= TOLERANCE, f"{name}: {difference:.1e}"
    assert worst_difference(result, merge.reference("average"))[0] > 100 * TOLERANCE
    assert verify(merge.output).problems == ()
    card = ModelCard.load(merge.output / "README.md")
    assert card.data.to_dict()["pipeline_tag"] == PIPELINES.get(family, "text-generation")
    assert ("[architecture]" in card.text) == (by == "described")


@pytest.mark.parametrize("family", ["gpt_neox", slow("opt")])
def test_its_weights_are_averaged_by_a_method_of_weights_alone(tmp_path: Path, family: checkpoints.Family) -> None:
    merge = make_merge(tmp_path, family, layers=2, merge={"method": "average"})
    assert worst_difference(read_result(merge.run()), merge.reference("average"))[0] <= TOLERANCE


@pytest.mark.slow
def test_what_is_in_no_list_of_inputs_is_averaged_and_told(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, "olmo2", architecture=TABLES["olmo2"])
    text = merge.manifest.read_text()
    merge.manifest.write_text(text.replace('    ["mlp.down_proj"],\n', ""))
    assert merge.manifest.read_text() != text
    (told,) = of_the_description(merge)
    assert told.startswith("not regressed, so averaged: ")
    assert "down_proj.weight" in told
    assert told.endswith(": in no list of [architecture] inputs")
    expected = merge.reference(uses=lambda name, block: "average" if "down_proj" in name else "regress")
    difference, name = worst_difference(read_result(merge.run()), expected)
    assert difference <= TOLERANCE, f"{name}: {difference:.1e}"


def test_a_result_is_bound_to_the_table_that_it_was_made_with(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, "olmo2", layers=1, hidden=8, architecture=TABLES["olmo2"])
    merge.run()
    meant = read_provenance(merge.output)["identity"]["manifest"]["architecture"]
    assert (meant["blocks"], meant["head"], meant.get("body")) == ("model.layers", ["lm_head"], None)
    text = merge.manifest.read_text()
    merge.manifest.write_text(text.replace('    ["mlp.down_proj"],\n', ""))
    with pytest.raises(ResumeError, match=r"manifest architecture inputs .*mlp.down_proj before, absent now"):
        merge.run()
