"""What is published of a manifest's text: the same, but for places of the machine."""

import tomllib

import pytest

from regstream.manifest.redaction import redact_paths


@pytest.mark.parametrize(
    ("text", "published"),
    [
        ('base = "/home/me/my models/llama"', 'base = "llama"'),
        ("base = '/home/me/llama/'", "base = 'llama'"),
        ('path = "~/rows/math.jsonl"  # was /mnt/disk/math, see ~/notes', 'path = "math.jsonl"  # was math, see notes'),
        ('#base = "/a/b" (or /c/d, /e/f)', '#base = "b" (or d, f)'),
        ("[[rules]]#/home/me/x", "[[rules]]#x"),
        ('workdir = "/"', 'workdir = ""'),
        ('base = "file:///home/me/llama"  # file:///mnt/x/y', 'base = "llama"  # y'),
        ('base = "~bob/llama"\noutput = "~bob"', 'base = "llama"\noutput = ""'),
        ('path = "../../secret/rows.jsonl"  # ../../secret/rows.jsonl', 'path = "rows.jsonl"  # rows.jsonl'),
        ('base = "../.."', 'base = ""'),
        ('base = "C:\\\\Users\\\\me\\\\llama"', 'base = "llama"'),
        ("base = 'C:\\Users\\me\\llama'  # D:/models/x", "base = 'llama'  # x"),
        ("base = '\\\\server\\share\\llama'", "base = 'llama'"),
        ('base = "/home/alice"\n# /Users/alice', 'base = ""\n# '),
        ('field = """\n/home/my user/models/x\n"""', 'field = """\nx\n"""'),
        ('names = ["/a/b", "/c/d"]', 'names = ["b", "d"]'),
        ("# https://me:hf_secret@host.org/x and hf_abcdefghij", "# https://host.org/x and <removed>"),
        ('base = "/a/ü \\"b\\""', 'base = "ü \\"b\\""'),
    ],
)
def test_absolute_places_are_cut_down_to_their_names(text: str, published: str) -> None:
    assert redact_paths(text) == published
    tomllib.loads(published)


@pytest.mark.parametrize(
    "text",
    [
        'base = "org/model@main"\npath = "rows/math.jsonl"  # rows and/or images, 1/2 of them',
        'parameters = "*.self_attn.*"\nblocks = "0-7"',
        "# from https://huggingface.co/org/model/tree/main",
        "renames = [['\\.w', ''], ['^~', 'b']]  # 3 / 4, a/b, ... and so on",
        'renames = [["\\\\.LayerNorm\\\\.gamma$", ".LayerNorm.weight"]]',
        'renames = [["^embed_out\\\\.", "lm_head."]]',
    ],
)
def test_all_else_stays(text: str) -> None:
    assert redact_paths(text) == text
