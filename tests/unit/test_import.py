"""`import regstream` has what a program needs, and costs nothing until it is used."""

import ast
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import regstream

HEAVY = "{'torch', 'transformers', 'numpy', 'pydantic'}"


def declared() -> dict[str, str]:
    """What the package names for type checkers, and the modules that it names it from."""
    tree = ast.parse(Path(str(regstream.__file__)).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {str(alias.asname): str(node.module) for node in imports for alias in node.names if alias.asname is not None}


def test_a_type_checker_and_a_program_find_the_same() -> None:
    names = declared()
    assert {"load_manifest", "make_manifest", "plan", "merge", "evaluate", "verify", "RegstreamError"} <= names.keys()
    for name, module in names.items():
        assert getattr(regstream, name) is getattr(sys.modules[module], name)
    public = {name for name in dir(regstream) if not name.startswith("_")}
    assert names.keys() <= public


def test_no_part_of_the_engine_hides_what_a_program_needs() -> None:
    assert not {module.name for module in pkgutil.iter_modules(regstream.__path__)} & declared().keys()


def test_the_engines_page_lists_every_function_with_what_it_returns() -> None:
    page = (Path(__file__).parents[2] / "engine/README.md").read_text()
    rows = dict(re.findall(r"(?m)^\| `(\w+)\([^)]*\)` \|\s*`?([^|`]*?)`?\s*\|", page.partition("## From Python")[2]))
    functions = {name for name, module in declared().items() if module == "regstream.api"}
    assert rows.keys() == functions
    for name, returned in rows.items():
        annotation = inspect.signature(getattr(regstream, name)).return_annotation
        shown = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
        assert shown == returned, name


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(regstream, "merg")


def test_importing_it_imports_nothing_heavy() -> None:
    script = f"import sys, regstream; assert not {HEAVY} & sys.modules.keys(); regstream.plan; regstream.Manifest"
    script += "; assert not {'torch', 'transformers'} & sys.modules.keys()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_every_error_has_the_exit_code_of_the_command_line() -> None:
    errors = ("ManifestError", "BudgetError", "InputError", "ResumeError", "SolveError", "Interrupted")
    assert [getattr(regstream, name).exit_code for name in errors] == [2, 3, 4, 5, 6, 130]
