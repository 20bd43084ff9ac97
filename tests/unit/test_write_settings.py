"""Settings go into a manifest's [merge] table; all else stays as a person wrote it."""

import os
import tomllib
from pathlib import Path

import pytest

from merging import Merge, make_merge
from regstream.errors import ManifestError, ResumeError
from regstream.manifest.read_manifest import read_manifest
from regstream.manifest.write_settings import check_can_be_written, write_settings


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Merge:
    return make_merge(tmp_path_factory.mktemp("merge"), layers=1, hidden=8, candidates=1)


REST = '[[candidates]]\nname = "a"  # first\nmodel = "candidate-0"\n[candidates.calibration]\npath = "task0.jsonl"\n'
#: The text before and after.
LAYOUTS = {
    "in place, with its comment": (
        '# top\n[merge]\nalpha = 0.95   # why\nmethod = "regmean++"\nbase = "base"\noutput = "o"\n\n' + REST,
        '# top\n[merge]\nalpha = 0.5   # why\nmethod = "regmean++"\nbase = "base"\noutput = "o"\n\n' + REST,
    ),
    "a new key": (
        '[merge]  # what\nmethod = "regmean++"\nbase = "base"  # of\noutput = "o"\n\n' + REST,
        '[merge]  # what\nmethod = "regmean++"\nbase = "base"  # of\noutput = "o"\nalpha = 0.5\n\n' + REST,
    ),
    "before the table of others": (
        '[merge]\nmethod = "regmean++"\nbase = "base"\noutput = "o"\n\n[merge.others]\nhead = "base"\n' + REST,
        '[merge]\nmethod = "regmean++"\nbase = "base"\noutput = "o"\nalpha = 0.5\n\n[merge.others]\nhead = "base"\n'
        + REST,
    ),
    "auto": (
        '[merge]\nmethod = "auto"  # find it\nbase = "base"\noutput = "o"\n' + REST,
        '[merge]\nmethod = "regmean++"  # find it\nbase = "base"\noutput = "o"\nalpha = 0.5\n' + REST,
    ),
    "a table on one line": (
        'merge = {method = "regmean++", base = "base", output = "o"}  # short\n' + REST,
        'merge = {method = "regmean++", base = "base", output = "o", alpha = 0.5}  # short\n' + REST,
    ),
    "Windows' line ends": (
        ('[merge]\nmethod = "regmean++"\nalpha = 0.9\nbase = "base"\noutput = "o"\n' + REST).replace("\n", "\r\n"),
        ('[merge]\nmethod = "regmean++"\nalpha = 0.5\nbase = "base"\noutput = "o"\n' + REST).replace("\n", "\r\n"),
    ),
}  # fmt: skip


def written(made: Merge, text: str) -> Path:
    path = made.manifest.with_name("own.toml")
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(("before", "after"), LAYOUTS.values(), ids=LAYOUTS.keys())
def test_comments_and_layout_stay(made: Merge, before: str, after: str) -> None:
    path = written(made, before)
    write_settings(path, read_manifest(path), {"alpha": 0.5})
    assert path.read_bytes().decode() == after
    assert read_manifest(path).merge.options.model_dump()["alpha"] == 0.5


def test_a_list_over_the_blocks_is_written_as_one(made: Merge) -> None:
    text = '[merge]\nmethod = "regmean++"\nalpha = [0.9, 0.5]\nbase = "base"\noutput = "o"\n' + REST
    path = written(made, text)
    write_settings(path, read_manifest(path), {"alpha": (0.9, 0.7)})
    assert path.read_text() == text.replace("[0.9, 0.5]", "[0.9, 0.7]")


@pytest.mark.parametrize("layout", ["dotted", "scattered"])
def test_unusual_layouts_keep_what_they_say(made: Merge, layout: str) -> None:
    dotted = 'merge.method = "regmean++"\nmerge.base = "base"\nmerge.output = "o"  # here\n' + REST
    scattered = (
        '[merge]\nmethod = "regmean++"\nbase = "base"\noutput = "o"  # here\n'
        + REST
        + '[merge.others]\nhead = "base"\n'
    )
    path = written(made, dotted if layout == "dotted" else scattered)
    expected = tomllib.loads(path.read_text())
    write_settings(path, read_manifest(path), {"alpha": 0.5})
    expected["merge"]["alpha"] = 0.5
    assert tomllib.loads(path.read_text()) == expected
    assert "# here" in path.read_text()


def test_options_that_do_not_go_with_the_settings_are_removed(made: Merge, monkeypatch: pytest.MonkeyPatch) -> None:
    from regstream.methods.regmean import RegMean

    monkeypatch.setattr(RegMean, "search_space", lambda _: ({"alpha": 0.5}, {}))
    path = written(made, LAYOUTS["in place, with its comment"][0])
    write_settings(path, read_manifest(path), {})
    assert "alpha" not in path.read_text()
    assert "# top" in path.read_text()


def test_mode_link_and_mark_stay(made: Merge) -> None:
    path = written(made, "\ufeff" + LAYOUTS["a new key"][0])
    path.chmod(0o640)
    link = path.with_name("link.toml")
    link.unlink(missing_ok=True)
    link.symlink_to(path)
    write_settings(link, read_manifest(link), {"alpha": 0.5})
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert path.read_bytes().decode() == "\ufeff" + LAYOUTS["a new key"][1]


def test_a_manifest_that_changed_meanwhile_is_not_written(made: Merge) -> None:
    path = written(made, LAYOUTS["a new key"][0])
    manifest = read_manifest(path)
    path.write_text(path.read_text() + "# mine\n")
    with pytest.raises(ResumeError, match=r"own.toml: changed since it was read, .* alpha = 0.5"):
        write_settings(path, manifest, {"alpha": 0.5})
    assert path.read_text().endswith("# mine\n")


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ManifestError, match="pipe: not a file, so that settings cannot be written into it"):
        check_can_be_written(tmp_path / "pipe")
