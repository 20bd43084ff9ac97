"""What the documents show is there: links, commands, manifests, generated tables, versions."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner

from docs.architectures import count
from docs.generated import ROOT, documents
from regstream import __version__
from regstream.manifest.architecture import ArchitectureTable
from regstream.manifest.read_manifest import read_manifest
from regstream_cli.app import cli
from tiny_models.registry import TINY_MODELS

PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not {"build", "dist", ".venv", "node_modules", "shared"} & set(path.relative_to(ROOT).parts)
)
_CODE = re.compile(r"(?ms)^```(\w*)\n(.*?)^```$")


def blocks(page: Path, language: str) -> Iterator[str]:
    """The page's code of one language."""
    return (text for found, text in _CODE.findall(page.read_text()) if found == language)


def commands(page: Path) -> Iterator[list[str]]:
    """The words of each command that the page shows, without comments, redirections and pipes."""
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            end = next((place for place, word in enumerate(words) if word in ("|", ">")), len(words))
            if words:
                yield words[:end]


#: Commands of other tools.
OTHERS = {"convert-hf-to-gguf", "curl", "llama-quantize", "llama-server", "lm_eval", "pip", "vllm"}
SHOWN = [(page, words) for page in PAGES for words in commands(page)]


def test_the_generated_parts_are_current() -> None:
    outdated = [path for path, text in documents().items() if path.read_text() != text]
    assert not outdated, "tools/docs/run writes them"


def test_the_table_of_architectures_has_a_row_for_each() -> None:
    """What the rows say is held against plans by `tests/e2e/test_every_architecture.py`."""
    lines = (ROOT / "manifests/architectures.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| ")][1:]
    assert [tuple(row.split(" | ")[:2]) for row in rows] == [
        (f"| {model.name}", f"`{model.model_class}`") for model in TINY_MODELS.values()
    ]
    assert count(rows) in lines


def test_the_first_page_is_short() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 150
    assert {"tools/quickstart", "tools/test"} <= {line.split()[0] for line in lines[:20] if line.strip()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    text = _CODE.sub("", page.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        found = page.parent / path if path else page
        assert found.exists(), target
        if anchor:
            headings = re.findall(r"(?m)^#+ (.*)$", _CODE.sub("", found.read_text()))
            assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}, target


def test_pages_link_to_all_documents() -> None:
    first = (ROOT / "README.md").read_text()
    folders = ("manifests", "cli", "engine", "tools")
    assert all(f"]({folder}/README.md)" in first for folder in folders)


@pytest.mark.parametrize(("page", "words"), SHOWN, ids=[" ".join(words)[:60] for _, words in SHOWN])
def test_every_command_is_one(page: Path, words: list[str]) -> None:
    if words[0] in ("torchrun", "accelerate", "srun"):
        words = words[words.index("-m") + 1 :]
    if words[0] == "regstream":
        context = click.Context(cli, info_name="regstream", **cli.context_settings)
        name, command, rest = cli.resolve_command(context, words[1:])
        assert command is not None
        if "--help" in rest:
            assert CliRunner().invoke(cli, [str(name), "--help"]).exit_code == 0
            return
        existing = [word if "FOLDER" not in word else "." for word in rest]
        existing = [re.sub(r"^(\w+)=(other|build)/.*", r"\1=.", word) for word in existing]
        command.make_context(name, existing, parent=context)
    elif words[0].startswith("tools/"):
        assert (ROOT / words[0]).stat().st_mode & 0o111
        assert all((ROOT / word).exists() for word in words[1:] if word.startswith(("tests/", "manifests/")))
    else:
        assert words[0] in OTHERS, words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_tool_that_is_named_is_there(page: Path) -> None:
    named = re.findall(r"(?<![\w/.])(tools/[\w/.-]*\w)", page.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "manifests/README.md"], ids=lambda page: page.parent.name)
def test_every_manifest_shown_is_valid(page: Path, tmp_path: Path) -> None:
    shown = list(blocks(page, "toml"))
    assert shown
    for text in shown:
        raw = tomllib.loads(text)
        if "merge" not in raw:
            ArchitectureTable.model_validate(raw["architecture"])
            continue
        for candidate in raw["candidates"]:
            rows = [candidate[key]["path"] for key in ("calibration", "evaluation") if "path" in candidate.get(key, {})]
            for name in rows:
                (tmp_path / name).write_text("")
            if (adapter := candidate.get("adapter", "")).startswith("runs/"):
                (tmp_path / adapter).mkdir(parents=True)
        (tmp_path / "merge.toml").write_text(text)
        assert len(read_manifest(tmp_path / "merge.toml").candidates) == len(raw["candidates"])


def test_the_python_shown_is_python() -> None:
    [text] = blocks(ROOT / "README.md", "python")
    compile(text, "README.md", "exec")
    assert len(text.splitlines()) <= 10


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / ".github/CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert (citation["title"], citation["type"]) == ("regstream", "software")
    assert (citation["version"], citation["license"]) == (__version__, "Apache-2.0")
    assert [name["name"] for name in citation["authors"]] == ["regstream contributors"]
    urls = {reference["url"] for reference in citation["references"]}
    assert urls == {"https://arxiv.org/abs/2212.09849", "https://arxiv.org/abs/2508.03121"}
    assert all(reference["title"] and reference["authors"] for reference in citation["references"])


def test_the_workflow_runs_every_python_that_is_promised() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    promised = [line.rpartition(" ")[2] for line in project["classifiers"] if ":: Python :: " in line]
    job = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["test"]
    assert job["strategy"]["matrix"]["python"] == promised == ["3.11", "3.12", "3.13", "3.14"]
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert (ROOT / ".ci/run").stat().st_mode & 0o111
