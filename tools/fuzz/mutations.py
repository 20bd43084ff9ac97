"""Ways to damage a file: its bytes, the JSON or the safetensors header in it, or what kind of file it is."""

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

Mutation = Callable[[Random, Path], None]

#: None of them is a path out of the folder of a case.
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3.5, -0.0, 1e308, float("nan"), float("inf"), 2**31, 2**63, 2**70, 100_000, "", " ",
    "x", "x" * 5000, "\ud800", "\u202e\x1b[31m", "a\nb", "\x00", [], {}, [None], [[]], {"": {}}, [1, "a", None],
    "(a+)+$", "(a|aa)+$", ["q_proj"], {"q_proj": -1}, "org/name", "C:\\x",
)  # fmt: skip


def mutate_bytes(random: Random, path: Path) -> None:
    """Flip, cut, repeat, insert or clear bytes."""
    data = bytearray(path.read_bytes())
    place = random.randrange(len(data) + 1)
    end = min(len(data), place + random.choice((1, 2, 8, 100)))
    match random.randrange(8):
        case 0:
            for _ in range(random.choice((1, 1, 4, 30))):
                if data:
                    data[random.randrange(len(data))] ^= 1 << random.randrange(8)
        case 1:
            del data[place:]
        case 2:
            del data[place:end]
        case 3:
            data[place:place] = random.randbytes(random.choice((1, 7, 200))).replace(b"/", b"x").replace(b"~", b"x")
        case 4:
            data[place:place] = data[place:end] * random.choice((1, 2, 50))
        case 5:
            data[place:end] = bytes(end - place)
        case 6:
            data = bytearray()
        case 7:
            data = bytearray(data.decode(errors="replace").encode(random.choice(("utf-16", "utf-8-sig", "utf-32"))))
    path.write_bytes(bytes(data))


def mutate_json(random: Random, path: Path) -> None:
    """Change values and keys of a JSON file."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        return mutate_bytes(random, path)
    path.write_text(_changed(random, content), encoding="utf-8", errors="surrogatepass")
    return None


def mutate_lines(random: Random, path: Path) -> None:
    """Change the JSON of some lines."""
    lines = path.read_text().splitlines()
    index = random.randrange(len(lines))
    lines[index] = _changed(random, json.loads(lines[index]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogatepass")


def mutate_header(random: Random, path: Path) -> None:
    """Change the header of a safetensors file, its length with it."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = _changed(random, json.loads(data[8 : 8 + length])).encode(errors="surrogatepass")
    told = len(header) if random.random() < 0.9 else random.choice((0, 1, len(header) * 2, 2**40, 2**63, 2**64 - 1))
    path.write_bytes(told.to_bytes(8, "little") + header + data[8 + length :])


def mutate_kind(random: Random, path: Path) -> None:
    """Put something else than a regular file in its place."""
    path.unlink()
    match random.randrange(6):
        case 0:
            os.mkfifo(path)
        case 1:
            path.mkdir()
        case 2:
            path.symlink_to(path.name)
        case 3:
            path.symlink_to("nothing")
        case 4:
            path.symlink_to("/dev/zero")
        case 5:
            here = Path.cwd()
            os.chdir(path.parent)  # the path of a socket has no room for more
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(path.name)
            os.chdir(here)


def mutate_toml(random: Random, path: Path) -> None:
    """Change the value of a line of a manifest, or take a line away or twice."""
    lines = path.read_text().splitlines()
    index = random.randrange(len(lines))
    key, _, _ = lines[index].partition(" = ")
    match random.randrange(4):
        case 0:
            del lines[index]
        case 1:
            lines.insert(index, lines[random.randrange(len(lines))])
        case _ if "output" not in key:
            value = random.choice((*(json.dumps(value) for value in _VALUES), "inf", "-nan", "1_0", "1979-05-27"))
            lines[index] = f"{key} = {value}"
        case _:
            lines[index] += "  # \x7f"
    path.write_text("\n".join(lines))


def _changed(random: Random, content: Any) -> str:
    """JSON of the content with one or two things in it changed."""
    for _ in range(random.choice((1, 1, 2))):
        content = _change(random, content)
    text = json.dumps(content)
    match random.randrange(25):
        case 0:
            return text.replace("1", "1" * 5000, 1)
        case 1:
            return text.replace("{", '{"a": ' + "[" * 100_000 + "]" * 100_000 + ", ", 1)
        case 2:
            return text.replace("{", '{"a": 1, "a": 2, ', 1)
    return text


def _change(random: Random, content: Any) -> Any:
    parents = [parent for parent in _containers(content) if parent]
    if not parents or random.random() < 0.02:
        return random.choice(_VALUES)
    parent = random.choice(parents)
    key = random.choice(list(parent)) if isinstance(parent, dict) else random.randrange(len(parent))
    match random.randrange(6):
        case 0:
            del parent[key]
        case 1 if isinstance(parent, dict):
            parent[random.choice(("", "x", "\ud800", "a" * 3000, str(key).upper()))] = parent.pop(key)
        case 2:
            parent[key] = _near(random, parent[key])
        case _:
            parent[key] = random.choice(_VALUES)
    return content


def _near(random: Random, value: Any) -> Any:
    if isinstance(value, int | float):
        return random.choice((value + 1, value - 1, -value, value * 2, value * 1_000_000, float(value), str(value)))
    if isinstance(value, str):
        return random.choice((value + value, value[:-1], value[1:], value * 200, [value], value.upper()))
    return [value]


def _containers(content: Any) -> list[Any]:
    if not isinstance(content, dict | list):
        return []
    values = content.values() if isinstance(content, dict) else content
    # Of a vocabulary's thousands of values few are enough.
    return [content, *(inner for value in list(values)[:200] for inner in _containers(value))]
