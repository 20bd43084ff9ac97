"""Pages in a real Chromium, without a window and without a network."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
EXECUTABLE = next(filter(None, map(shutil.which, _NAMES)), None)
#: Of a test that opens a page.
needs_chromium = pytest.mark.skipif(EXECUTABLE is None, reason="found no Chromium (Debian's package: chromium)")


@dataclass(frozen=True)
class Node:
    """An element as Chromium tells it to a screen reader."""

    role: str
    name: str
    described: str


@contextmanager
def chromium() -> Iterator[Any]:
    """A Chromium; ends with the context."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        # Root has no sandbox; pages here are the tests' own.
        browser = playwright.chromium.launch(executable_path=EXECUTABLE, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass(frozen=True)
class OpenedPage:
    """A page, what it wrote to the console, and what it asked for beside itself."""

    page: Any
    messages: list[str]
    requests: list[str]

    def boxes(self, selector: str) -> list[dict[str, float]]:
        """The boxes of elements that match, without those that are not drawn."""
        elements = self.page.query_selector_all(selector)
        found = [element.bounding_box() for element in elements if element.evaluate("one => one.checkVisibility()")]
        return [box for box in found if box is not None and box["width"] > 0 and box["height"] > 0]

    def color(self, selector: str, name: str) -> tuple[int, ...]:
        """A color of an element, as red, green and blue."""
        text = self.page.eval_on_selector(selector, f"element => getComputedStyle(element)['{name}']")
        return tuple(int(part) for part in text.partition("(")[2].rstrip(")").split(","))[:3]

    def wait_for_frames(self, count: int) -> None:
        """Wait until the page was drawn so many times."""
        for _ in range(count):
            self.page.evaluate("new Promise(requestAnimationFrame)")

    def accessibility_tree(self) -> list[Node]:
        """What a screen reader is told of the page, in its order."""
        session = self.page.context.new_cdp_session(self.page)
        nodes = session.send("Accessibility.getFullAXTree")["nodes"]
        return [_node(entry) for entry in nodes if not entry.get("ignored")]

    @property
    def is_wider_than_its_window(self) -> bool:
        """Whether the page scrolls sideways."""
        found: bool = self.page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
        return found


@contextmanager
def opened(browser: Any, file: Path, *, width: int = 1280, scheme: str = "light") -> Iterator[OpenedPage]:
    """Open a file in a window of a width, in a context of its own that may not reach a network."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
    page = context.new_page()
    messages: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(file.as_uri())
    yield OpenedPage(page, messages, requests)
    context.close()


def contrast(first: Sequence[int], second: Sequence[int]) -> float:
    """The contrast ratio of two colors, as WCAG defines it: from 1 to 21."""
    lighter, darker = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(color: Sequence[int]) -> float:
    shares = [value / 255 for value in color]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _node(entry: dict[str, Any]) -> Node:
    def text(key: str) -> str:
        return str(entry.get(key, {}).get("value", ""))

    return Node(role=text("role"), name=text("name"), described=text("description"))
