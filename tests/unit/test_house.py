"""The shape of the code: short files, short functions, no test for a method's type, rooms that list their files."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for folder in ("engine", "cli", "tools") for path in (ROOT / folder).rglob("*.py"))
ENGINE = ROOT / "engine" / "regstream"
LOOSE = {"__init__", "api", "errors", "events", "units"}


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def of_methods(node: ast.AST) -> bool:
    """Whether an expression is a method or one of the classes of methods."""
    names = {path.stem for path in (ENGINE / "methods").glob("[a-z]*.py")}
    text = ast.unparse(node).lower().replace("_", "")
    return text.split(".")[-1] in {"method", *(name.replace("_", "") for name in names)}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_short_and_no_method_is_tested_for_its_type(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 250
    tree = ast.parse(text)
    long = [f"{f.name}: {f.end_lineno - f.lineno + 1} lines" for f in functions(tree) if f.end_lineno - f.lineno >= 45]  # type: ignore[operator]
    assert not long
    if (ENGINE / "methods") not in path.parents:
        calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
        tested = [c for c in calls if ast.unparse(c.func) == "isinstance" and any(map(of_methods, c.args))]
        assert not tested, ast.unparse(tested[0])


def test_nothing_is_loose_at_the_top_but_what_a_program_imports() -> None:
    assert {path.stem for path in ENGINE.glob("*.py")} == LOOSE


def test_every_room_says_what_each_of_its_files_holds() -> None:
    # Methods are listed where they are registered.
    for room in (path for path in ENGINE.iterdir() if (path / "__init__.py").exists() and path.name != "methods"):
        described = ast.get_docstring(ast.parse((room / "__init__.py").read_text())) or ""
        missing = [p.name for p in room.glob("*.py") if p.stem != "__init__" and p.name not in described]
        assert not missing, f"{room.name}: {missing}"
