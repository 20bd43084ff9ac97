"""The installed packages need nothing that they do not declare, and read nothing of the source tree."""

import json
import subprocess
from pathlib import Path

_IMPORT_ALL = """
import importlib, json, pkgutil, regstream, regstream_cli
modules = [module.name for package in (regstream, regstream_cli)
           for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
for name in modules:
    importlib.import_module(name)
print(json.dumps([regstream.__file__, regstream_cli.__file__, len(modules)]))
"""


def test_every_module_imports_with_what_is_declared(built: Path, environment: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        ["python", "-I", "-c", _IMPORT_ALL], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    *imported_from, count = json.loads(done.stdout)
    assert count > 300
    assert all(Path(file).is_relative_to(built / "venv") for file in imported_from)


def test_a_class_list_is_found_by_its_name(environment: dict[str, str], tmp_path: Path) -> None:
    script = (
        "from pathlib import Path; from regstream.manifest.class_lists import class_list_path as find;"
        "from regstream.evaluation.class_names import read_class_names as read;"
        "print(len(read(find('cifar100', Path())).names))"
    )
    done = subprocess.run(
        ["python", "-I", "-c", script], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("100\n", 0), done.stderr
