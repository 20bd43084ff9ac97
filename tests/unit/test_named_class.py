"""The class that a config names: one that transformers lacks is read as its own class, and that is said."""

import json
from pathlib import Path

import checkpoints
from regstream.checkpoint.checkpoint import open_checkpoint


def test_a_class_that_transformers_lacks_is_named(tmp_path: Path) -> None:
    base = checkpoints.make_family(tmp_path, "llama", candidates=0, layers=1, hidden=8).base
    config = base / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"architectures": ["MyLlamaForCausalLM"]}))
    opened = open_checkpoint("base", base)
    assert opened.architecture.model_class == "LlamaForCausalLM"
    [note] = opened.notes
    assert note == (
        "base: config.json names MyLlamaForCausalLM, which transformers does not have; it is read, and the result"
        " saved, as LlamaForCausalLM"
    )
