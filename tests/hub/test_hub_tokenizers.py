"""The union of tokenizers of checkpoints of the hub: their small files come when it is made, rows with their shards."""

from pathlib import Path

from added_tokens import add_tokens, tokenizer_in
from hub_server import Hub, put_on
from merging import make_merge


def test_the_same_bytes_as_from_folders(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    merge = {"tokenizer": "union", "chat_template": "task1"}
    local = make_merge(tmp_path / "local", candidates=2, layers=2, num_rows=4, merge=merge)
    for index, folder in enumerate(local.folders.candidates):
        add_tokens(folder, ["<|shared|>", f"<|{index}|>"][:: 1 - 2 * index], seed=index)
    (local.folders.candidates[1] / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    remote = put_on(hub, local, tmp_path / "remote")
    local.run()
    remote.run()
    assert len(tokenizer_in(remote.output)) == 291
    for name in ("model*", "tokenizer*", "chat_template.jinja", "config.json"):
        for path in local.output.glob(name):
            assert path.read_bytes() == (remote.output / path.name).read_bytes()
