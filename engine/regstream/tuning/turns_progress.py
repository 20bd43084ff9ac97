"""The events of merges that take turns, as those of one run."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

from regstream.events import Event, Listener, RunFinished, RunStarted, StepCommitted, StepStarted, Warned
from regstream.planning.plan import Plan


class TurnsProgress:
    """Numbers the steps of all merges through, and names each step with the label of its merge."""

    def __init__(self, plans: Mapping[str, Plan], output: Path, listener: Listener) -> None:
        self._plans, self._output, self._listener = plans, output, listener
        self._done = 0

    def begin(self) -> None:
        """Announce the steps, of which some may be done already."""
        in_turns = zip_longest(*(plan.step_seconds for plan in self._plans.values()), fillvalue=0.0)
        seconds = tuple(one for step in in_turns for one in step)
        total = sum(len(plan.steps) for plan in self._plans.values())
        started = RunStarted(done=self._done, total=total, output=str(self._output), step_seconds=seconds)
        self._listener(started)

    def listener_of(self, label: str) -> Listener:
        """The listener of one merge."""

        def listen(event: Event) -> None:
            match event:
                case RunStarted():
                    self._done += event.done
                case RunFinished():
                    self._done += len(self._plans[label].steps) * event.was_finished_before
                case StepStarted():
                    self._listener(replace(event, index=self._done, name=f"{event.name} of {label}"))
                case StepCommitted():
                    self._listener(replace(event, index=self._done, name=f"{event.name} of {label}"))
                    self._done += 1
                case Warned():
                    pass  # of a result that nobody keeps; the merge with the settings that are found gives its own
                case _:
                    self._listener(event)

        return listen
