"""What a merge asks of an accelerator: nothing waits for it once a batch, queues are bounded, peaks are projected.

Each claim is also shown to be able to fail: a fault is planted, and seen.
"""

import gc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import checkpoints
from merging import make_merge
from parametrize import slow
from regstream import api
from regstream.events import Event, StepCommitted
from regstream.linalg.gram import Gram
from regstream.planning.plan import Plan
from regstream.storage import hidden_states
from simulated_device import COUNTS, NAME, simulated_device


@pytest.fixture(autouse=True)
def device() -> str:
    """These run on the simulated device alone, whatever else the folder's tests run on."""
    return NAME


def planned(folder: Path, num_rows: int = 6, family: checkpoints.Family = "llama", **merge: Any) -> Plan:
    """A merge on the device, a batch a row."""
    resources, batches = f'device = "{NAME}"', "batch_rows = 1"
    return make_merge(
        folder, family, num_rows=num_rows, resources=resources, calibration=batches, layers=2, merge=merge
    ).plan()


def num_waits(folder: Path, num_rows: int, method: str) -> int:
    """How often the host waited for the device during a merge."""
    with simulated_device() as counts:
        plan = planned(folder / str(num_rows), num_rows, method=method)
        counts.num_waits = 0
        api.merge(plan)
        return counts.num_waits


@pytest.mark.parametrize("method", ["regmean++", slow("regmean")])
def test_nothing_waits_once_a_batch(tmp_path: Path, method: str) -> None:
    few, many = (num_waits(tmp_path, num_rows, method) for num_rows in (12, 24))
    assert (
        many - few < 3 * 12
    )  # not one of the further batches of the candidates costs a wait, in the stem or in a block


def test_a_wait_once_a_batch_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add = Gram.add

    def waiting(gram: Gram, x_TI: Tensor) -> None:
        assert float(x_TI.sum()) == float(x_TI.sum())
        add(gram, x_TI)

    monkeypatch.setattr(Gram, "add", waiting)
    few, many = (num_waits(tmp_path, num_rows, "regmean++") for num_rows in (12, 24))
    assert many - few >= 3 * 12


def test_hidden_states_are_sent_one_ahead(tmp_path: Path) -> None:
    with simulated_device() as counts:
        api.merge(planned(tmp_path))
        assert 1 <= counts.most_in_flight <= 3


def test_a_queue_without_a_bound_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def all_at_once(items: Iterable[Any]) -> Iterator[Any]:
        return iter(list(items))

    monkeypatch.setattr(hidden_states, "read_ahead", all_at_once)
    with simulated_device() as counts:
        api.merge(planned(tmp_path))
        assert counts.most_in_flight > 3


def beyond_projection(plan: Plan) -> list[str]:
    """The steps that held more than what is projected, allowances for torch's own allocator and the driver left out."""
    found = []

    def listen(event: Event) -> None:
        if isinstance(event, StepCommitted):
            terms = plan.projections[event.index].terms["device"]
            projected = sum(terms.values()) - terms["allocator"] - terms["context"]
            if event.device_peak_bytes > projected + 4096:  # scalars and positions
                found.append(f"{event.name}: {event.device_peak_bytes:,} of {projected:,}")

    api.merge(plan, listener=listen)
    return found


@pytest.mark.parametrize(
    ("family", "method"),
    [
        ("llama", "regmean++"),
        ("clip", "regmean++"),
        slow("gemma2", "regmean++"),
        slow("gpt2", "regmean"),
        slow("gpt2", "swudi"),
        slow("llama", "ace"),
    ],
)
def test_no_step_holds_more_than_projected(tmp_path: Path, family: checkpoints.Family, method: str) -> None:
    gc.collect()  # what earlier merges left on the device
    with simulated_device():
        assert beyond_projection(planned(tmp_path, family=family, method=method)) == []


def test_a_leak_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add, kept = Gram.add, list[Tensor]()

    def leaking(gram: Gram, x_TI: Tensor) -> None:
        kept.append(x_TI.repeat(8, 1))
        add(gram, x_TI)

    monkeypatch.setattr(Gram, "add", leaking)
    with simulated_device():
        assert beyond_projection(planned(tmp_path, num_rows=12)) != []


def test_weights_are_sent_once(tmp_path: Path) -> None:
    with simulated_device() as counts:
        plan = planned(tmp_path)
        counts.sent_bytes = 0
        api.merge(plan)
        # What is read from disk passes the bus once; what is written returns to it for the merged forward pass.
        assert counts.sent_bytes <= 1.05 * (plan.read_bytes + plan.write_bytes)


MISPLACED: dict[str, Callable[[Tensor], object]] = {
    "sum": lambda there: there + torch.ones(2, 2),
    "product": lambda there: there @ torch.ones(2, 2),
    "in place": lambda there: there.add_(torch.ones(2, 2)),
    "concatenation": lambda there: torch.cat([there, torch.ones(2, 2)]),
}


@pytest.mark.parametrize("operation", MISPLACED.values(), ids=MISPLACED)
def test_a_misplaced_tensor_is_refused(operation: Callable[[Tensor], object]) -> None:
    with simulated_device():
        there = torch.ones(2, 2).to(NAME)
        with pytest.raises(RuntimeError, match=r"on the CPU among tensors on the device|same device"):
            operation(there)


def test_memory_beyond_the_limit_is_refused() -> None:
    with simulated_device():
        COUNTS.limit_bytes = COUNTS.held_bytes + 1024
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(1024, device=NAME)


def test_an_evaluation_finds_what_it_finds_on_the_cpu(tmp_path: Path) -> None:
    merge = make_merge(tmp_path, layers=2)
    text = merge.manifest.read_text()
    for index in range(3):
        rows = f'path = "task{index}.jsonl"\nfield = "input_ids"'
        text = text.replace(
            f"[candidates.calibration]\n{rows}", f"[candidates.evaluation]\n{rows}\n[candidates.calibration]\n{rows}"
        )
    merge.manifest.write_text(text)
    merge.run()
    on_cpu = api.evaluate(api.plan(merge.read(), of_result=True))
    with simulated_device():
        there = api.evaluate(api.plan(merge.read(), of_result=True, device=NAME))
    assert len(on_cpu.rows) == 6
    for ours, theirs in zip(on_cpu.rows, there.rows, strict=True):
        assert theirs.scores == pytest.approx(ours.scores, abs=1e-5)
