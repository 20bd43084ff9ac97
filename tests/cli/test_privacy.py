"""Nothing that is published or printed holds the user's home folder or token."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

import checkpoints
from adapters import make_adapters
from merging import make_merge

Invoke = Callable[..., Result]
TOKEN = "hf_" + "PlantedTokenOfAUser"
USER = "secretuser"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder with a merge of adapters, whose files name it wherever they can."""
    home = tmp_path_factory.mktemp("machines") / "home" / USER
    home.mkdir(parents=True)
    merge = make_adapters(make_merge(home, layers=1, candidates=2), "llama")
    for index, place in enumerate((f"{home}/my models/llama", f"~{USER}/llama")):
        path = home / f"adapter-{index}" / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": place}))
    config = home / "base" / "config.json"
    added = {"_name_or_path": f"{home}/x", "parents": [{"name_or_path": "../../secretuser/y"}, f"file://{home}/z"]}
    config.write_text(json.dumps(json.loads(config.read_text()) | added))
    checkpoints.make_tokenizer().save_pretrained(home / "base")
    settings = home / "base" / "tokenizer_config.json"
    added = {"name_or_path": f"{home}/base", "tokenizer_file": f"C:\\Users\\{USER}\\tokenizer.json"}
    settings.write_text(json.dumps(json.loads(settings.read_text()) | added))
    comment = f"# ~{USER}/notes, file://{home}/a, ../../{USER}/b, https://{USER}:{TOKEN}@huggingface.co/org/x\n"
    merge.manifest.write_text(comment + merge.manifest.read_text().replace('"base"', f'"{home}/base"'))
    return home


@pytest.fixture
def printed(home: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> Callable[..., bytes]:
    """Call the command line as that user; all it prints."""
    monkeypatch.chdir(home)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return lambda *arguments: invoke(*arguments).output_bytes


def test_a_result_tells_nothing_of_its_maker(home: Path, printed: Callable[..., bytes]) -> None:
    assert TOKEN.encode() not in printed("run", "manifest.toml", "--debug")
    files = [path for path in (home / "merged").rglob("*") if path.is_file()]
    assert {"README.md", "regstream.json", "config.json", "tokenizer_config.json"} <= {path.name for path in files}
    for path in files:
        content = path.read_bytes()
        assert USER.encode() not in content, path.name
        assert TOKEN.encode() not in content, path.name
    record = json.loads((home / "merged" / "regstream.json").read_text())
    assert "was made for llama; it is merged into base" in record["warnings"][0]
    settings = json.loads((home / "merged" / "tokenizer_config.json").read_text())
    assert settings["bos_token"] == "<s>"
    assert not {"name_or_path", "tokenizer_file"} & settings.keys()


def test_no_failure_prints_a_token(home: Path, printed: Callable[..., bytes]) -> None:
    rows = home / "broken.jsonl"
    rows.write_text(json.dumps({"input_ids": f"https://me:{TOKEN}@host/x {TOKEN}"}) + "\n")
    text = (home / "manifest.toml").read_text()
    (home / "broken.toml").write_text(text.replace('"task0.jsonl"', '"broken.jsonl"'))
    said = [printed(command, "broken.toml", "--debug") for command in ("plan", "run", "evaluate")]
    said.append(printed("push", f"{TOKEN}/x", "me/x", "--debug"))
    for output in said:
        assert b"Traceback" in output
        assert TOKEN.encode() not in output
