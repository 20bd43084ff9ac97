"""What people give in place of a manifest, or of a folder in one."""

from collections.abc import Callable
from pathlib import Path

import pytest

from regstream.errors import ManifestError
from regstream.manifest.read_manifest import read_manifest
from regstream.manifest.references import ModelRef

MERGEKIT = """
models:
  - model: org/base
  - model: org/math   # tuned
    parameters:
      weight: 0.5
  - model: "./runs/code"
merge_method: ties
base_model: org/base
"""


INIT = "regstream init --from-mergekit"


def refused(path: Path) -> str:
    with pytest.raises(ManifestError) as error:
        read_manifest(path)
    [problem] = error.value.problems
    return problem


def test_a_configuration_of_mergekit_is_named_with_the_command_that_makes_a_manifest_of_it(tmp_path: Path) -> None:
    (tmp_path / "merge.yaml").write_text(MERGEKIT)
    problem = refused(tmp_path / "merge.yaml")
    file = tmp_path / "merge.yaml"
    assert problem.endswith(f"a recipe of mergekit in YAML; write a manifest with `{INIT} {file} -o merge.toml`")


@pytest.mark.parametrize(
    ("text", "what"), [("merge: {}\n", "YAML"), ('{"merge": {}}', "JSON"), ("[merge]\nmethod = \n", "invalid TOML")]
)
def test_other_formats_are_named(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "merge.toml").write_text(text)
    assert what in refused(tmp_path / "merge.toml")


@pytest.mark.slow
@pytest.mark.parametrize("text", ["a." * 9000 + "b = 1", "a = " + "[" * 9000])
def test_endless_nesting_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "merge.toml").write_text(text)
    assert "nested too deeply" in refused(tmp_path / "merge.toml")


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """A manifest beside the folder models/llama-3."""
    (tmp_path / "work/models/llama-3").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    def written(base: str, output: str = "out") -> Path:
        text = f'[merge]\nmethod = "average"\nbase = "{base}"\noutput = "{output}"\n'
        (tmp_path / "work/m.toml").write_text(f'{text}[[candidates]]\nname = "a"\nmodel = "org/a"\n')
        return tmp_path / "work/m.toml"

    return written


@pytest.mark.parametrize("base", ["models/lama-3", "models/llama_3", "./models/lama-3"])
def test_a_mistyped_folder_is_not_taken_for_the_hubs(write: Callable[[str], Path], base: str) -> None:
    problem = refused(write(base))
    assert f'found "{base}"' in problem
    assert "the nearest path is" in problem
    assert problem.count("models/llama-3") == 1


def test_a_folder_seen_from_the_current_one_is_told_as_seen_from_the_manifest(
    write: Callable[[str], Path], tmp_path: Path
) -> None:
    (tmp_path / "elsewhere/runs/code").mkdir(parents=True)
    assert "../elsewhere/runs/code" in refused(write("runs/code"))


@pytest.mark.parametrize("base", ["models/lama-3@main", "org/lama-3", "models/llama-3"])
def test_a_revision_or_another_organisation_is_the_hubs(write: Callable[[str], Path], base: str) -> None:
    found = read_manifest(write(base)).merge.base
    assert found is not None
    assert (found.hub_id is None) == (base == "models/llama-3")


def test_what_a_run_made_itself_makes_no_name_a_folder(tmp_path: Path, write: Callable[..., Path]) -> None:
    (tmp_path / "work/org/merged").mkdir(parents=True)
    assert read_manifest(write("org/base", "org/merged")).merge.base == ModelRef(hub_id="org/base")


@pytest.mark.parametrize("start", ["https://huggingface.co/", "https://me:secret@hf.co/", "hf://"])
def test_an_address_of_the_hub_is_told_as_an_id(write: Callable[[str], Path], start: str) -> None:
    problem = refused(write(f"{start}meta-llama/Llama-3.1-8B"))
    assert "found the URL" in problem
    assert problem.endswith('write "meta-llama/Llama-3.1-8B"')
