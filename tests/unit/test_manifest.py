"""Reading a manifest: what comes out of a good one, and every kind of problem of a bad one."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from regstream.errors import ManifestError
from regstream.manifest.non_block_parameters import NonBlockParameters
from regstream.manifest.read_manifest import read_manifest
from regstream.manifest.references import ModelRef
from regstream.manifest.resources import Resources
from regstream.manifest.schema import Calibration, Manifest
from regstream.manifest.value_types import parse_device

GOOD = """\
[merge]
method = "regmean++"
base = "base"
output = "merged"

[[rules]]
parameters = "*.self_attn.*"
blocks = "late"
use = "average"

[[candidates]]
name = "math"
model = "./math"
[candidates.calibration]
path = "math.jsonl"

[[candidates]]
name = "code"
model = "org/code@refs/pr/1"
adapter = "org/adapter"
weight = 2
[candidates.calibration]
dataset = "org/rows"
split = "train"
rows = 256
"""

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Lay down what `GOOD` names, and give what writes a manifest beside it."""
    for folder in ("base", "math", "images"):
        (tmp_path / folder).mkdir()
    (tmp_path / "math.jsonl").write_text('{"text": "1"}\n')

    def write(text: str) -> Path:
        path = tmp_path / "merge.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def good(*changes: tuple[str, str]) -> str:
    text = GOOD
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


def problems(path: Path) -> tuple[str, ...]:
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    found = caught.value.problems
    assert all(problem.startswith(f"{path}:") for problem in found)
    assert all(len(problem.splitlines()) == 1 for problem in found)
    return tuple(problem.removeprefix(f"{path}:").strip() for problem in found)


def test_a_good_manifest_comes_out_frozen_with_defaults_and_absolute_paths(write: Write, tmp_path: Path) -> None:
    manifest = read_manifest(write(GOOD))
    assert manifest.merge.base == ModelRef(folder=tmp_path / "base")
    assert manifest.merge.output == tmp_path / "merged"
    assert manifest.workdir == tmp_path / "merged" / ".regstream"
    assert (manifest.merge.options.model_dump()["alpha"], manifest.merge.dtype, manifest.merge.seed) == (0.95, None, 0)
    assert manifest.merge.others == NonBlockParameters()
    assert manifest.resources == Resources()
    math, code = manifest.candidates
    assert math.model == ModelRef(folder=tmp_path / "math")
    assert math.calibration == Calibration(path=tmp_path / "math.jsonl")
    assert code.model == ModelRef(hub_id="org/code", revision="refs/pr/1")
    assert code.adapter == ModelRef(hub_id="org/adapter")
    assert code.weight == 2.0


def test_a_manifest_is_frozen(write: Write) -> None:
    manifest = read_manifest(write(GOOD))
    with pytest.raises(ValueError, match="frozen"):
        setattr(manifest.merge, "alpha", 0.5)  # noqa: B010  as an assignment it does not pass the type checker


def test_paths_are_relative_to_the_manifest_and_not_to_the_current_folder(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(good(('"merged"', '"../elsewhere/merged"')))
    monkeypatch.chdir("/")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_manifest(path).merge.output == tmp_path.parent / "elsewhere" / "merged"
    assert read_manifest(write(good(('"merged"', '"~/merged"')))).merge.output == tmp_path / "merged"
    monkeypatch.chdir(tmp_path)
    assert read_manifest("merge.toml").merge.output == tmp_path / "merged"


def test_a_linked_calibration_file_keeps_the_name_that_tells_its_format(write: Write, tmp_path: Path) -> None:
    (tmp_path / "blob").write_text("a row\n")
    (tmp_path / "rows.txt").symlink_to(tmp_path / "blob")
    for text in ("rows.txt", "images/../rows.txt"):
        manifest = read_manifest(write(good(("math.jsonl", text))))
        assert manifest.candidates[0].calibration == Calibration(path=tmp_path / "rows.txt")


def test_what_has_the_form_of_a_hub_id_but_lies_here_is_a_folder(write: Write, tmp_path: Path) -> None:
    (tmp_path / "org" / "adapter").mkdir(parents=True)
    assert read_manifest(write(GOOD)).candidates[1].adapter == ModelRef(folder=tmp_path / "org" / "adapter")


def test_sizes_and_devices_are_read(write: Write, tmp_path: Path) -> None:
    resources = '[resources]\ndevice = "cuda:1"\ndevice_memory = "8GiB"\ndisk = "2 TB"\nworkdir = "state"\n'
    manifest = read_manifest(write(GOOD + resources))
    assert (manifest.resources.device, manifest.resources.host_memory) == ("cuda:1", None)
    assert (manifest.resources.device_memory, manifest.resources.disk) == (8 * 2**30, 2 * 10**12)
    assert manifest.workdir.parent == tmp_path / "state"
    assert manifest.workdir.name.startswith("regstream-merged-")


@pytest.mark.parametrize("text", ["gpu", "cuda:", "cuda:x", "CPU", "", "mps:0"])
def test_other_devices_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a device"):
        parse_device(text)


def test_a_method_that_regresses_nothing_needs_no_calibration(write: Write) -> None:
    merge = '[merge]\nmethod = "task_arithmetic"\nbase = "base"\noutput = "out"\n'
    text = merge + '[[candidates]]\nname = "a"\nmodel = "math"\n'
    manifest = read_manifest(write(text))
    assert manifest.merge.options.model_dump()["scale"] == 0.3
    assert not manifest.merge.regresses
    assert manifest.candidates[0].calibration is None


def test_a_byte_order_mark_is_no_problem(tmp_path: Path, write: Write) -> None:
    path = write("\ufeff" + GOOD)
    assert len(read_manifest(path).candidates) == 2


def architecture(*changes: tuple[str, str]) -> tuple[str, str]:
    """The change that puts an [architecture] table before the first, itself changed."""
    text = """
[architecture]
blocks = "model.layers"
embeddings = ["model.embed"]
head = ["head"]
inputs = [["q", "k"], ["o"]]
"""
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return "[merge]", f"{text}\n[merge]"


def test_an_architecture_says_what_is_not_to_be_derived(write: Write) -> None:
    described = read_manifest(write(good(architecture()))).architecture
    assert described is not None
    assert (described.model_class, described.rows, described.body) == (None, None, None)
    assert described.inputs == (("q", "k"), ("o",))
    assert (described.embeddings, described.final_norm, described.head) == (("model.embed",), None, ("head",))
    assert read_manifest(write(GOOD)).architecture is None


def test_any_key_of_an_architecture_may_be_left_out(write: Write) -> None:
    without = read_manifest(write(good(architecture(('blocks = "model.layers"\n', ""))))).architecture
    assert without is not None
    assert (without.blocks, without.head) == (None, ("head",))


ONE_PROBLEM = {
    "no inputs": (architecture(('[["q", "k"], ["o"]]', "[]")), "[architecture] inputs: expected at least one name"),
    "an input of none": (architecture(('["o"]', "[]")), "[architecture] inputs[1]: expected at least one name"),
    "a linear for a list": (
        architecture(('["o"]', '"o"')),
        '[architecture] inputs[1]: expected a list of lists of a block\'s linears that read the same tensor, found "o"',
    ),
    "no name": (architecture(('"k"', "3")), "[architecture] inputs[0][1]: expected a list of lists"),
    "a linear twice": (architecture(('["o"]', '["o", "q"]')), '[architecture] inputs[1][1]: "q" is listed twice'),
    "a module in two parts": (
        architecture(('["head"]', '["model.embed"]')),
        '[architecture] head[0]: "model.embed" is listed twice; a module belongs to one part',
    ),
    "a module in another": (
        architecture(('["head"]', '["head", "model.embed.words"]')),
        '[architecture] head[1]: "model.embed.words" and "model.embed" overlap; a module belongs to one part',
    ),
    "a part around the blocks": (
        architecture(('["head"]', '["model"]')),
        '[architecture] head[0]: "model" contains the blocks "model.layers"; list modules outside the blocks',
    ),
    "a part in the blocks": (
        architecture(('["head"]', '["model.layers.3.norm"]')),
        '[architecture] head[0]: "model.layers.3.norm" is inside the blocks "model.layers"',
    ),
    "a body beside the blocks": (
        architecture(("head =", 'body = "decoder"\nhead =')),
        '[architecture] body: expected a module that contains the blocks "model.layers", or "" for the model itself',
    ),
    "no rows of that kind": (
        architecture(("head =", 'rows = "pixels"\nhead =')),
        '[architecture] rows: expected "input_ids" or "pixel_values", found "pixels"; did you mean "pixel_values"?',
    ),
    "no expression": (
        architecture(("head =", 'renames = [["(", ""]]\nhead =')),
        '[architecture] renames[0]: expected a regular expression and its replacement, found "("',
    ),
    "no pair": (
        architecture(("head =", 'renames = [["^model"]]\nhead =')),
        "[architecture] renames[0][1]: missing; expected pairs such as",
    ),
    "unknown key of an architecture": (
        architecture(("head =", "heads =")),
        '[architecture] heads: unknown key; did you mean "head"?',
    ),
    "unknown key": (
        ('output = "merged"', 'output = "merged"\nalhpa = 0.5'),
        '[merge] alhpa: unknown key; did you mean "alpha"?',
    ),
    "key of another table": (
        ('path = "math.jsonl"', 'path = "math.jsonl"\ndtype = "float32"'),
        'candidates[0] "math": calibration.dtype: unknown key; it is a key of [merge]',
    ),
    "key of no table": (
        ('use = "average"', 'use = "average"\nxyzzy = 1'),
        "rules[0]: xyzzy: unknown key; valid keys: parameters, blocks, use",
    ),
    "unknown table": (("[merge]", "[resource]\n[merge]"), 'resource: unknown key; did you mean "resources"?'),
    "wrong choice": (
        ('"regmean++"', '"regmean+"'),
        '[merge] method: expected "average", "slerp", "task_arithmetic", "ties", "dare_linear", "dare_ties", '
        '"model_stock", "ace", "swudi", "aswudi", "regmean", "regmean++", "regfilter", "featcal" or "auto", '
        'found "regmean+"; did you mean "regmean++"?',
    ),
    "missing key": (('base = "base"\n', ""), "[merge] base: missing; expected a folder or a hub id: the checkpoint"),
    "missing choice": (('use = "average"\n', ""), 'rules[0]: gives nothing; expected "use"'),
    "number out of range": (
        ('output = "merged"', 'output = "merged"\nalpha = 1.5'),
        "[merge] alpha: expected a number from 0 to 1, found 1.5",
    ),
    "no number": (
        ("weight = 2", "weight = nan"),
        'candidates[1] "code": weight: expected a number from 0 on, found nan',
    ),
    "text for a number": (
        ("rows = 256", 'rows = "256"'),
        'candidates[1] "code": calibration.rows: expected a whole number above 0, found "256"',
    ),
    "truth for a number": (
        ("weight = 2", "weight = true"),
        'candidates[1] "code": weight: expected a number from 0 on',
    ),
    "number no machine holds": (
        ("weight = 2", f"weight = 0x{'f' * 5000}"),
        'candidates[1] "code": weight: expected a number from 0 on, found a number of 20000 bits',
    ),
    "number for a size": (
        ("[merge]", "[resources]\ndisk = 8\n[merge]"),
        '[resources] disk: expected a size, such as "100GiB", found 8',
    ),
    "no size": (
        ("[merge]", '[resources]\ndisk = "lots"\n[merge]'),
        '[resources] disk: expected a size with its unit, such as "8GiB", found "lots"',
    ),
    "no unit": (("[merge]", '[resources]\nhost_memory = "8"\n[merge]'), 'such as "8GiB", found "8"'),
    "no bytes": (("[merge]", '[resources]\ndisk = "0B"\n[merge]'), "[resources] disk: expected a size from 1 byte"),
    "endless size": (
        ("[merge]", f'[resources]\ndisk = "{"9" * 400}"\n[merge]'),
        f'[resources] disk: expected a size with its unit, such as "8GiB", found "{"9" * 40}"',
    ),
    "too large": (
        ("[merge]", f'[resources]\ndisk = "{"9" * 18}T"\n[merge]'),
        "[resources] disk: expected a size from 1 byte to 8 EiB",
    ),
    "unknown device": (("[merge]", '[resources]\ndevice = "gpu"\n[merge]'), "[resources] device: expected a device"),
    "bad blocks": (('"late"', '"latter"'), 'rules[0]: blocks: expected a block "3", a range "0-7"'),
    "bad name": (('"math"', '"../math"'), 'candidates[0] "../math": name: expected a name of up to 100 letters'),
    "repeated name": (
        ('"code"', '"Math"'),
        'candidates[1] "Math": name: found the name of candidates[0] "math"; names must differ',
    ),
    "scale without task arithmetic": (
        ('output = "merged"', 'output = "merged"\nscale = 0.5'),
        '[merge] scale: only method "task_arithmetic", "ties", "dare_linear", "dare_ties", "swudi", "aswudi", '
        '"regfilter" or "featcal" has this'
        " key; remove it, or change the method",
    ),
    "no calibration": (
        ('[candidates.calibration]\npath = "math.jsonl"\n', ""),
        'candidates[0] "math": calibration: missing; "regmean++" needs a calibration set for every candidate',
    ),
    "no rows": (
        ('path = "math.jsonl"', "rows = 1"),
        'candidates[0] "math": calibration: expected "path" or "dataset", found neither',
    ),
    "rows twice": (
        ('path = "math.jsonl"', 'path = "math.jsonl"\ndataset = "org/rows"'),
        'candidates[0] "math": calibration: expected "path" or "dataset", found both',
    ),
    "split of a file": (
        ('path = "math.jsonl"', 'path = "math.jsonl"\nsplit = "train"'),
        'candidates[0] "math": calibration.split: only valid with "dataset"',
    ),
    "images of token ids": (
        ('path = "math.jsonl"', 'path = "math.jsonl"\nfield = "input_ids"\nimages = "image"'),
        'candidates[0] "math": calibration.images: only valid with a field of text or "messages"; remove it',
    ),
    "no data set's id": (
        ('"org/rows"', '"org/rows@main"'),
        'candidates[1] "code": calibration.dataset: expected a data set\'s hub id',
    ),
    "no model": (
        ('model = "./math"\n', ""),
        'candidates[0] "math": expected "model", "adapter", or both, found neither',
    ),
    "missing model": (('"./math"', '"./moth"'), 'candidates[0] "math": model: expected a folder or a hub id'),
    "file for a model": (
        ('"./math"', '"math.jsonl"'),
        'candidates[0] "math": model: expected a folder, found the file',
    ),
    "missing base": (('"base"', '"bass"'), '[merge] base: expected a folder or a hub id "org/name", found "bass"'),
    "missing adapter": (
        ('"org/adapter"', '"./adapter"'),
        'candidates[1] "code": adapter: expected a folder or a hub id',
    ),
    "missing rows": (
        ('"math.jsonl"', '"rows.txt"'),
        'calibration.path: expected a file, found "rows.txt"; there is no /',
    ),
    "unreadable rows": (
        ('"math.jsonl"', '"math.xlsx"'),
        "calibration.path: expected a file ending in .jsonl, .json, .csv, .txt, .parquet, .safetensors, or a folder of",
    ),
    "output is the base": (('"merged"', '"base"'), "is also the base"),
    "output in a candidate": (('"merged"', '"math/merged"'), "is inside the model of candidates[0]"),
    "output is a file": (('"merged"', '"math.jsonl"'), "[merge] output: expected a folder, found the file"),
    "empty path": (('"merged"', '""'), "[merge] output: expected a path, found empty text"),
    "null byte": (('"merged"', '"a\\u0000b"'), "[merge] output: a path cannot contain a null byte"),
    "no one's home": (
        ('"merged"', '"~nobody-of-that-name/x"'),
        "[merge] output: expected a path, found one that cannot",
    ),
    "one table for a list": (
        ("[[rules]]", "[rules]"),
        "rules: expected [[rules]] tables, found a table",
    ),
    "text for a table": (
        ('path = "math.jsonl"', 'path = "math.jsonl"\n[candidates.evaluation]\npath = 3'),
        'candidates[0] "math": evaluation.path: expected a file or a folder of images, found 3',
    ),
}


@pytest.mark.parametrize(("change", "expected"), ONE_PROBLEM.values(), ids=ONE_PROBLEM.keys())
def test_one_thing_wrong_is_said_with_its_key(change: tuple[str, str], expected: str, write: Write) -> None:
    found = problems(write(good(change)))
    assert any(expected in problem for problem in found), found


@pytest.mark.parametrize("name", [name for name in ONE_PROBLEM if name not in ("unknown table", "text for a table")])
def test_one_thing_wrong_is_one_problem(name: str, write: Write) -> None:
    assert len(problems(write(good(ONE_PROBLEM[name][0])))) == 1


def test_a_rule_cannot_regress_with_a_method_that_does_not(write: Write) -> None:
    text = good(('"regmean++"', '"average"'), ('use = "average"', 'use = "regress"'))
    assert problems(write(text)) == (
        'rules[0]: use: found "regress", but the method "average" regresses nothing; expected "average" or "base"',
    )


def test_there_is_at_least_one_candidate(write: Write) -> None:
    text = good().partition("[[candidates]]")[0]
    assert problems(write("candidates = []\n" + text)) == (
        "candidates: expected at least one [[candidates]] table, found none",
    )
    assert problems(write(text)) == (
        "candidates: missing; expected [[candidates]] tables, one for each checkpoint: the fine-tuned models to merge",
    )


def test_what_is_written_stays_clear_of_what_is_read(write: Write, tmp_path: Path) -> None:
    images = ('path = "math.jsonl"', 'path = "images"')
    assert (
        "is inside the calibration set of candidates[0]" in problems(write(good(images, ('"merged"', '"images/x"'))))[0]
    )
    [problem] = problems(write(good(('"merged"', '"."'))))
    assert "contains the base" in problem
    assert "and 3 more inputs; choose" in problem  # a model, its rows, the manifest
    state = "[resources]\nworkdir = {}\n"
    assert "is inside the base" in problems(write(GOOD + state.format('"base/state"')))[0]
    assert "remove the key" in problems(write(GOOD + state.format('"merged/.regstream"')))[0]
    (tmp_path / "link").symlink_to(tmp_path / "base")
    assert "is also the base" in problems(write(good(('"merged"', '"link"'))))[0]


def test_everything_wrong_is_said_at_once_in_the_order_of_the_tables(write: Write) -> None:
    text = good(
        ('output = "merged"', 'output = "base/merged"\nalhpa = 0.5\nscale = 1.0'),
        ('"late"', '"7-3"'),
        ('"./math"', '"./moth"'),
        ('path = "math.jsonl"', 'path = "math.jsonl"\nrows = 0'),
        ("weight = 2", "weight = -1"),
        ('"code"', '"math"'),
    )
    found = problems(write(text + '[resources]\ndevice = "gpu"\n'))
    assert [problem.partition(": ")[0] for problem in found] == [
        *["[merge] scale", "[merge] alhpa", "[merge] output", "rules[0]"],
        *['candidates[0] "math"'] * 2,
        *['candidates[1] "math"'] * 2,
        "[resources] device",
    ]


def test_a_candidate_that_is_no_table_does_not_hide_the_others(write: Write) -> None:
    found = problems(write(good(("[merge]", 'candidates = [3, {name = "a"}]\n[merge]')).partition("[[candidates]]")[0]))
    assert found == (
        "candidates[0]: expected [[candidates]] tables, one for each checkpoint, found 3",
        'candidates[1] "a": expected "model", "adapter", or both, found neither',
        'candidates[1] "a": calibration: missing; "regmean++" needs a calibration set for every candidate',
    )


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[merge\n", ":1:7: invalid TOML: "),
        ("a = 1\na = 2\n", ":2:6: invalid TOML: "),
        ("a = " + "[" * 5000, ": tables or lists are nested"),
    ],
)
def test_broken_toml_is_one_line_with_its_place(text: str, place: str, write: Write) -> None:
    path = write(text)
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    assert str(caught.value).startswith(f"{path}{place}")
    assert len(caught.value.problems) == 1


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert problems(tmp_path / "none.toml") == ("cannot be read: No such file or directory",)
    assert problems(tmp_path) == ("cannot be read: Is a directory; name a manifest",)
    (tmp_path / "latin.toml").write_bytes(b'[merge]\nbase = "\xe9"\n')
    assert problems(tmp_path / "latin.toml") == ("2: expected UTF-8 text, found the byte 0xe9",)


def test_strange_characters_do_not_break_the_line(write: Write) -> None:
    found = problems(write(good(("[merge]", '"a\\nb\\u2028" = 1\n[merge]'), ('"late"', '"\\u0085"'))))
    assert len(found) == 2


def test_a_manifest_can_be_built_without_a_file() -> None:
    manifest = Manifest.model_validate(
        {
            "merge": {"method": "average", "base": "org/base", "output": "out"},
            "candidates": [{"name": "a", "model": ModelRef(hub_id="org/a")}],
        }
    )
    assert manifest.merge.output == Path.cwd() / "out"
    assert [str(candidate.model) for candidate in manifest.candidates] == ["org/a"]


def test_a_model_reference_is_one_thing() -> None:
    with pytest.raises(ValueError, match="either a folder or a hub id"):
        ModelRef()
    with pytest.raises(ValueError, match="no revision"):
        ModelRef(folder=Path("x"), revision="main")


def test_importing_the_manifest_stays_light() -> None:
    heavy = "{'torch', 'transformers', 'numpy'}"
    code = f"import regstream.manifest.read_manifest, sys; assert not {heavy} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
