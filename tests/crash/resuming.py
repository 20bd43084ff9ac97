"""What must hold after any interruption: the same command goes on, to the bytes of an undisturbed run."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from crash.faults import in_child
from merging import Merge
from regstream.events import Event, StepStarted

MEASURED = "regstream.measured.json"


@dataclass(frozen=True)
class Resuming:
    """A merge that is going to be interrupted, and the files of an undisturbed run of it."""

    merge: Merge
    undisturbed: dict[str, bytes]
    begun: Path  # takes the name of every step that is begun

    def run(self) -> None:
        """Run it in this process."""

        def listen(event: Event) -> None:
            if isinstance(event, StepStarted):
                with self.begun.open("a") as stream:
                    stream.write(f"{event.name}\n")

        self.merge.run(listener=listen)

    def check(self, place: str) -> None:
        """The same command goes on to the same bytes, with at most one step done twice and nothing left over."""
        output = self.merge.output
        if (output / "config.json").exists():  # what could load is whole
            shards = {name: data for name, data in self.undisturbed.items() if name.endswith(".safetensors")}
            assert contents(output).items() >= shards.items(), place
        assert in_child(self.run) == 0, place
        assert contents(output) == self.undisturbed, place
        assert {path.name for path in output.iterdir()} == set(self.undisturbed) | {MEASURED}, place
        begun = self.begun.read_text().splitlines() if self.begun.exists() else []
        assert len(begun) - len(set(begun)) <= 1, f"{place}: {begun}"
        self.forget()

    def forget(self) -> None:
        """Remove the output and the count."""
        shutil.rmtree(self.merge.output, ignore_errors=True)
        self.begun.unlink(missing_ok=True)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file's bytes but for the one that holds clock and memory readings."""
    files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if name != MEASURED}
