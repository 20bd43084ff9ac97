"""What the manifests of the paper's runs name: each candidate with its own data set, nothing left out."""

import re
from pathlib import Path

import pytest

from paper.conftest import MANIFESTS
from paper.published import IMAGES, TEXTS
from regstream.manifest.class_lists import class_list_path
from regstream.manifest.read_manifest import read_manifest
from regstream.manifest.schema import Manifest

FOLDER = MANIFESTS / "paper"
TOWERS = {"b32": "clip-vit-base-patch32", "b16": "clip-vit-base-patch16", "l14": "clip-vit-large-patch14"}
CLIPS = [f"clip-{size}-{tasks}" for size in TOWERS for tasks in (8, 20)]
LANGUAGE_MODELS = {"mergebench-llama-3.2-3b": "Llama-3.2-3B", "mergebench-llama-3.1-8b": "Llama-3.1-8B"}


def read(name: str) -> Manifest:
    return read_manifest(FOLDER / f"{name}.toml")


def hub_ids(manifest: Manifest) -> set[str]:
    models = [manifest.merge.base, *(candidate.model for candidate in manifest.candidates)]
    sets = [rows for c in manifest.candidates for rows in (c.calibration, c.evaluation) if rows]
    return {model.hub_id for model in models if model and model.hub_id} | {
        rows.dataset for rows in sets if rows.dataset
    }


def test_there_is_a_manifest_for_every_run_and_no_other() -> None:
    assert {path.stem for path in FOLDER.glob("*.toml")} == {*CLIPS, *LANGUAGE_MODELS}


@pytest.mark.parametrize("name", [*CLIPS, *LANGUAGE_MODELS])
def test_every_run_is_regmean_plus_plus_into_a_folder_of_its_own(name: str) -> None:
    manifest = read(name)
    assert (manifest.merge.method, manifest.merge.options.model_dump()["alpha"]) == ("regmean++", 0.95)
    assert manifest.merge.output == MANIFESTS.parent / "build" / "paper" / name


@pytest.mark.parametrize("name", CLIPS)
def test_a_towers_candidates_go_with_their_own_images(name: str) -> None:
    _, size, tasks = name.split("-")
    manifest = read(name)
    assert manifest.merge.base is not None
    assert manifest.merge.base.hub_id == f"openai/{TOWERS[size]}"
    assert [candidate.name for candidate in manifest.candidates] == list(IMAGES)[: int(tasks)]
    for candidate in manifest.candidates:
        images, rows, held_out = IMAGES[candidate.name], candidate.calibration, candidate.evaluation
        assert str(candidate.model) == f"tanganke/{TOWERS[size]}_{candidate.name}"
        assert rows is not None
        assert held_out is not None
        for found in (rows, held_out):
            named = (found.dataset, found.config, found.revision, found.field)
            assert named == (images.dataset, images.config, images.revision, images.image)
        assert (rows.split, rows.rows, rows.batch_rows) == ("train", 256, 32)
        assert (held_out.split, held_out.rows, held_out.label) == (images.test, None, images.label)
        assert held_out.classes == class_list_path(candidate.name.replace("-", "_"), MANIFESTS)


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_a_language_models_candidates_go_with_their_own_rows(name: str) -> None:
    model, manifest = LANGUAGE_MODELS[name], read(name)
    assert str(manifest.merge.base) == f"meta-llama/{model}"
    assert manifest.merge.others.vocabulary == "base"
    assert [candidate.name for candidate in manifest.candidates] == list(TEXTS)
    for candidate in manifest.candidates:
        assert str(candidate.model) == f"MergeBench/{model}_{candidate.name}"
        rows = candidate.calibration
        assert rows is not None
        assert (rows.dataset, rows.split, rows.rows, rows.max_length) == (
            f"MergeBench/{candidate.name}_val", "train", 256, 2048,
        )  # fmt: skip
        assert tuple(re.findall(r"\{(\w+)\}", rows.field)) == TEXTS[candidate.name]


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_a_row_reads_as_it_does_in_the_published_code(name: str) -> None:
    expected = """Below is an instruction that describes a task, paired with an input that provides further context. \
Write a response that appropriately completes the request.
        {0}
        ### Instruction:
        ASKED
        {0}
        ### Response:
        ANSWERED
        """.format("").replace("\n\n", "\n        \n")
    for candidate in read(name).candidates:
        assert candidate.calibration is not None
        asked, answered = TEXTS[candidate.name]
        filled = candidate.calibration.field.replace(f"{{{asked}}}", "ASKED").replace(f"{{{answered}}}", "ANSWERED")
        assert filled == expected


def test_the_notes_tell_of_every_id() -> None:
    notes = (FOLDER / "README.md").read_text()
    found = set[str]().union(*(hub_ids(read(name)) for name in (*CLIPS, *LANGUAGE_MODELS)))
    assert len(found) == 3 + 3 * 20 + len(IMAGES) + 2 + 2 * len(TEXTS) + len(TEXTS)
    for name in found:
        told = re.sub(r"^(tanganke/clip-vit-[a-z]+-patch\d+)_.*", r"\1_TASK", name)
        told = re.sub(r"^(MergeBench/Llama-[^_]+)_.*", r"\1_DOMAIN", told)
        assert f"`{told}`" in notes, name


def test_a_manifest_is_copied_with_the_files_it_names(copied: Path) -> None:
    candidates = read_manifest(copied / "clip-b32-20.toml").candidates
    assert all(c.evaluation is not None and c.evaluation.classes is not None for c in candidates)
