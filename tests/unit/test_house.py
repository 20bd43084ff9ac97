"""The shape of the code: short files, short functions, no test for a method's type, rooms that list their files."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for folder in ("engine", "cli", "tools") for path in (ROOT / folder).rglob("*.py"))
ENGINE = ROOT / "engine" / "regstream"
LOOSE = {"__init__", "__main__", "api", "errors", "events", "units"}


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def of_methods(node: ast.AST) -> bool:
    """Whether an expression is a method or one of the classes of methods."""
    names = {path.stem for path in (ENGINE / "methods").glob("[a-z]*.py")}
    text = ast.unparse(node).lower().replace("_", "")
    return text.split(".")[-1] in {"method", *(name.replace("_", "") for name in names)}


def problems(path: Path) -> Iterator[str]:
    text = path.read_text()
    if len(text.splitlines()) > 250:
        yield "more than 250 lines"
    tree = ast.parse(text)
    yield from (f"{f.name}: more than 45 lines" for f in functions(tree) if f.end_lineno - f.lineno >= 45)  # type: ignore[operator]
    if (ENGINE / "methods") not in path.parents:
        calls = (
            node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance"
        )
        yield from (ast.unparse(call) for call in calls if any(map(of_methods, call.args)))


def test_files_and_functions_are_short_and_no_method_is_tested_for_its_type() -> None:
    assert {str(path): found for path in SOURCES if (found := list(problems(path)))} == {}


def test_nothing_is_loose_at_the_top_but_what_a_program_imports() -> None:
    assert {path.stem for path in ENGINE.glob("*.py")} == LOOSE


def test_every_room_says_what_each_of_its_files_holds() -> None:
    # Methods are listed where they are registered.
    rooms = (path for path in ENGINE.iterdir() if (path / "__init__.py").exists() and path.name != "methods")
    for room in (*rooms, ROOT / "cli" / "regstream_cli"):
        described = ast.get_docstring(ast.parse((room / "__init__.py").read_text())) or ""
        missing = [
            p.name
            for p in room.glob("*.py")
            if p.name not in ("__init__.py", "__main__.py") and p.name not in described
        ]
        assert not missing, f"{room.name}: {missing}"


def test_one_room_knows_of_cuda() -> None:
    others = [path for path in SOURCES if path != ENGINE / "device" / "cuda.py" and ENGINE in path.parents]
    named = {str(path): name for path in others for name in names_of_cuda(path)}
    assert named == {}


def names_of_cuda(path: Path) -> Iterator[str]:
    """Attributes and imports of a file that are torch's for CUDA."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr in ("cuda", "cudnn"):
            yield ast.unparse(node)
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.name for alias in node.names if "torch.cuda" in ast.unparse(node))
