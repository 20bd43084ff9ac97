"""A merge of checkpoints on the hub: the same bytes as from folders, on a disk too small for all of them."""

import json
import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from crash.faults import in_child
from crash.resuming import MEASURED, contents
from disk_bounds import sampled, weights_bytes, with_disk
from hub_server import Fault, Hub, put_on, serving, stop
from merging import Merge, make_merge, warnings_in, without_diagnostics
from regstream import api
from regstream.errors import BudgetError, InputError, Interrupted, ResumeError
from regstream.events import Event, Fetching, StepCommitted, StepStarted, Warned, ignore_event
from regstream.output.record import read_provenance
from regstream.planning.plan import Plan
from regstream.planning.planning import make_plan
from regstream.ranks.environment import RankId
from regstream.runtime.scheduler import run
from regstream.storage.journal import Journal
from regstream.storage.tuning_folder import remove_tuning

TOLD = ("README.md", "regstream.json", MEASURED)
LFS = "GET /lfs/.*"


def made(folder: Path) -> dict[str, bytes]:
    """What a result is made of, but for what tells of its inputs."""
    return {name: data for name, data in contents(folder).items() if name not in TOLD}


def planned(merge: Merge, **options: Any) -> Plan:
    """The plan, as the command line makes it."""
    commits = Journal.begun_identity(merge.read().workdir).get("hub", {})
    return make_plan(merge.read(), commits=commits, **options)


def fetched(hub: Hub) -> list[str]:
    """Whole files that were asked for, in order; what was only resumed counts once."""
    return [r.path for r in hub.asked(LFS) if not (r.range or "").startswith("bytes=0-")]


def shards_in(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.rglob("*.safetensors"))


def stops_at(name: str) -> Callable[[Event], None]:
    """A listener that ends the run where a step begins."""

    def listen(event: Event) -> None:
        if isinstance(event, StepStarted) and event.name == name:
            raise Interrupted("here")

    return listen


def spread(folder: Path, shard_of: Callable[[str], int]) -> None:
    """Lay a checkpoint's tensors out over other shards."""
    tensors = {name: t for path in sorted(folder.glob("*.safetensors")) for name, t in load_file(path).items()}
    for path in folder.glob("*.safetensors"):
        path.unlink()
    count = 1 + max(map(shard_of, tensors))
    weight_map = {name: f"model-{shard_of(name) + 1:05d}-of-{count:05d}.safetensors" for name in tensors}
    for file in sorted(set(weight_map.values())):
        save_file({n: t for n, t in tensors.items() if weight_map[n] == file}, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


@pytest.mark.slow
@pytest.mark.parametrize("disk", ["", "200MB"])
def test_a_tuning_downloads_a_shard_once_for_all_settings(remote: Merge, hub: Hub, disk: str) -> None:
    if disk:
        remote.manifest.write_text(f'{remote.manifest.read_text()}disk = "{disk}"\n')
    plan = make_plan(remote.read())
    tuning = api.tune(plan)
    assert [len(scored.trials) for scored in tuning.rounds] == [6]
    assert len(fetched(hub)) == len(set(fetched(hub))) > 8
    remove_tuning(plan.workdir)
    assert not remote.output.exists()


@pytest.mark.slow
def test_the_same_bytes_as_from_folders(local_once: Merge, remote: Merge, hub: Hub, cache: Path) -> None:
    result = remote.run()
    assert made(result) == made(local_once.output)
    assert len(fetched(hub)) == len(set(fetched(hub)))
    assert len(shards_in(cache)) == len(fetched(hub))  # without a bound on the disk they stay


@pytest.mark.slow
def test_on_a_disk_for_less_than_two_candidates(local_once: Merge, remote: Merge, hub: Hub, cache: Path) -> None:
    disk = int(1.9 * weights_bytes(local_once.folders.candidates[0]))
    without_diagnostics(remote.manifest)
    with_disk(remote, disk)
    plan = planned(remote)
    assert plan.downloads.repeated_bytes == 0
    assert plan.downloads.peak_disk_bytes <= disk
    with sampled(cache.parent, remote.output) as sizes:
        run(plan)
    assert made(remote.output) == made(local_once.output)
    assert plan.downloads.peak_disk_bytes * 0.7 < max(sizes) <= disk
    assert len(sizes) > 100
    assert len(fetched(hub)) == len(set(fetched(hub)))
    assert shards_in(cache) == []


def test_several_ranks_do_not_evict(remote: Merge, hub: Hub, cache: Path) -> None:
    with_disk(remote, int(1.9 * weights_bytes(remote.folders.candidates[0])))
    rank = planned(remote).on_ranks(2).ranks[0]
    assert rank.downloads.repeated_bytes == 0
    with pytest.raises(BudgetError, match=r"^2 of 2 ranks need .* do not evict, .*; raise it, or run one rank, which "):
        rank.validate()


def test_another_rank_lists_its_downloads_in_its_own_folder(remote: Merge, hub: Hub, cache: Path) -> None:
    plan = planned(remote, rank_id=RankId(rank=1, size=2, local_rank=0, local_size=1))
    plan.workdir.mkdir(parents=True)
    file = next(file for step in plan.step_shards for file in step.files)
    with plan.prefetcher.running(plan.step_shards, ignore_event):
        plan.prefetcher.ensure_local(file.path)
    assert [path.name for path in remote.read().workdir.iterdir()] == ["rank-1"]
    assert plan.run_folder.remove() == []
    assert not plan.workdir.exists()


@pytest.mark.slow
def test_what_was_in_the_cache_before_stays(remote: Merge, hub: Hub, cache: Path) -> None:
    name = "model-00003-of-00009.safetensors"
    plan = planned(remote)
    path = plan.candidates[1].checkpoint.folder / name
    plan.prefetcher.ensure_local(path)
    with_disk(remote, 100 << 20)
    run(planned(remote))
    assert shards_in(cache) == [name]
    assert path.exists()


@pytest.mark.slow
def test_each_shard_comes_before_it_is_used_and_in_the_order_of_use(remote: Merge, hub: Hub) -> None:
    plan = planned(remote)
    seen: dict[int, set[str]] = {}

    def listen(event: Event) -> None:
        if isinstance(event, StepCommitted):
            seen[event.index] = set(fetched(hub))

    run(plan, listener=listen)
    uses = list(dict.fromkeys(f"/lfs/{file.digest}" for stage in plan.step_shards for file in stage.files))
    assert fetched(hub) == uses
    for index, stage in list(enumerate(plan.step_shards))[1:-1]:
        coming = [file for file in stage.files if f"/lfs/{file.digest}" not in seen.get(index - 2, set())]
        assert len({f"/lfs/{file.digest}" for file in coming} & seen[index - 1]) >= 1, index


@pytest.mark.slow
def test_blocks_spread_in_another_order_cost_what_the_plan_says(hub: Hub, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    local = make_merge(tmp_path / "local", candidates=2, layers=8, hidden=128, sharded=True, num_rows=4)
    for candidate in local.folders.candidates:  # as sorted by names that are no numbers: 0 and 4, 1 and 5 ...
        spread(candidate, lambda name: int(name.split(".")[2]) % 4 if ".layers." in name else 4)
    local.run()
    merge = put_on(hub, local, tmp_path / "remote")
    ample = planned(merge).ample_disk_bytes
    with_disk(merge, ample)
    assert planned(merge).downloads.repeated_bytes == 0
    merge.manifest.write_text(merge.manifest.read_text().replace(f'disk = "{ample}B"\n', ""))
    disk = ample - weights_bytes(local.folders.candidates[0]) // 2
    with_disk(merge, disk)
    plan = planned(merge)
    assert plan.downloads.repeated_bytes > 0
    before = hub.sent.total()
    with sampled(cache.parent, merge.output) as sizes:
        run(plan)
    assert made(merge.output) == made(local.output)
    assert max(sizes) <= disk
    assert hub.sent.total() - before == plan.downloads.download_bytes
    assert len(fetched(hub)) > len(set(fetched(hub)))


@pytest.mark.slow
def test_hidden_states_are_made_again_from_shards_that_were_let_go(hub: Hub, cache: Path, tmp_path: Path) -> None:
    """RegMean's follow each candidate's own blocks: those have to come once more, and within the bound."""
    (tmp_path / "local").mkdir()
    sizes: dict[str, Any] = {"candidates": 2, "layers": 6, "hidden": 128, "sharded": True, "num_rows": 4}
    local = make_merge(tmp_path / "local", merge={"method": "regmean"}, **sizes)
    local.run()
    merge = put_on(hub, local, tmp_path / "remote")
    disk = planned(merge).ample_disk_bytes
    with_disk(merge, disk)
    with pytest.raises(Interrupted):
        run(planned(merge), listener=stops_at("block 4"))
    for chunk in (merge.read().workdir / "hidden" / "4" / "task1").rglob("*"):
        if chunk.is_file() and "c" in chunk.parts:
            chunk.unlink()
    told: list[Event] = []
    with sampled(cache.parent, merge.output) as sizes_seen:
        run(planned(merge), listener=told.append)
    assert any("recomputing the hidden states that enter block 4" in e.message for e in told if isinstance(e, Warned))
    assert made(merge.output) == made(local.output)
    assert max(sizes_seen) <= disk
    assert shards_in(cache) == []


@pytest.mark.slow
def test_begun_anew_what_was_brought_is_still_let_go(local_once: Merge, remote: Merge, hub: Hub, cache: Path) -> None:
    with_disk(remote, 100 << 20)
    with pytest.raises(Interrupted):
        run(planned(remote), listener=stops_at("block 4"))
    assert shards_in(cache) != []
    run(planned(remote), restart=True)
    assert made(remote.output) == made(local_once.output)
    assert shards_in(cache) == []
    assert len(fetched(hub)) < 1.5 * len(set(fetched(hub)))


@pytest.mark.slow
def test_a_disk_that_one_step_is_too_much_for_is_refused_at_once(remote: Merge, hub: Hub, cache: Path) -> None:
    without_diagnostics(remote.manifest)
    with_disk(remote, 6 << 20)
    with pytest.raises(
        BudgetError, match=r"needs 9.\d* MiB of disk .*, the \[resources\] disk budget is 6 MiB; raise it"
    ):
        run(planned(remote))
    assert fetched(hub) == []
    assert not remote.output.exists()


@pytest.mark.slow
def test_no_network_in_the_middle_keeps_all_and_goes_on(
    local_once: Merge, remote: Merge, hub: Hub, monkeypatch: pytest.MonkeyPatch, impatient: list[float]
) -> None:
    def leave(event: Event) -> None:
        if isinstance(event, StepStarted) and event.name == "block 6":
            stop(hub)

    with pytest.raises(InputError, match=r"org/candidate-\d: model-.*: the hub cannot be reached"):
        run(planned(remote), listener=leave)
    committed = len(Journal.read_committed(remote.read().workdir))
    assert committed >= 5
    came = {path.split("/")[-1] for path in fetched(hub)}
    with serving() as back:
        back.repos, back.blobs = hub.repos, hub.blobs
        monkeypatch.setattr(constants, "ENDPOINT", back.endpoint)
        template = back.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        begun: list[str] = []
        run(
            planned(remote), listener=lambda event: begun.append(event.name) if isinstance(event, StepStarted) else None
        )
        assert len(begun) == 10 - committed
        again = {path.split("/")[-1] for path in fetched(back)} & came
    assert len(again) <= 1  # what was on its way
    assert made(remote.output) == made(local_once.output)


@pytest.mark.slow
def test_killed_while_a_shard_comes_it_is_gone_on_with(local_once: Merge, remote: Merge, hub: Hub) -> None:
    plan = planned(remote)
    shard = plan.step_shards[4].files[1]
    never = threading.Event()
    hub.faults = [Fault(f"GET /lfs/{shard.digest}", pause=never)]

    def killed() -> None:
        def kill(event: Event) -> None:
            if isinstance(event, Fetching) and event.file == str(shard) and event.num_bytes > 200_000:
                os.kill(os.getpid(), signal.SIGKILL)

        constants.DOWNLOAD_CHUNK_SIZE = 50_000
        run(planned(remote), listener=kill)

    assert in_child(killed) == -signal.SIGKILL
    never.set()
    assert made(remote.run()) == made(local_once.output)
    first, second = [r.range for r in hub.asked(f"GET /lfs/{shard.digest}(| bytes=.*-)")]
    assert first is None
    assert int(str(second).removeprefix("bytes=").rstrip("-")) > 100_000


@pytest.mark.slow
def test_a_revision_that_moved_is_told_and_the_run_goes_on_with_its_own(
    local_once: Merge, remote: Merge, hub: Hub
) -> None:
    with pytest.raises(Interrupted):
        run(planned(remote), listener=stops_at("block 3"))
    before = hub.repos["org/candidate-1"].branches["main"]
    now = hub.add("org/candidate-1", local_once.folders.candidates[0])
    told: list[Event] = []
    run(planned(remote, listener=told.append))
    assert warnings_in(told) == [f"org/candidate-1 is at {now} now; the run continues with {before}"]
    assert made(remote.output) == made(local_once.output)
    with pytest.raises(ResumeError, match=rf"(?s)the result of another merge; .*hub org/candidate-1: {before[:10]}"):
        run(planned(remote))


@pytest.mark.slow
def test_offline_with_a_full_cache_nothing_is_asked(
    local_once: Merge, remote: Merge, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(remote)
    for path in plan.base.files:  # of which a merge itself needs no more than what no block holds
        plan.prefetcher.ensure_local(path)
    run(plan)
    shutil.rmtree(remote.output)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.requests)
    assert made(remote.run()) == made(local_once.output)
    assert len(hub.requests) == asked


@pytest.mark.slow
def test_begun_on_the_network_and_ended_off_it(
    local_once: Merge, remote: Merge, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (plan := planned(remote)).candidates[0].checkpoint.files:
        plan.prefetcher.ensure_local(path)
    with pytest.raises(Interrupted):
        run(planned(remote), listener=stops_at("block 5"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    # A shard that is not there has no header to plan with: it is named.
    with pytest.raises(InputError, match=r"base: .* names model-.*, which is not there"):
        planned(remote)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert made(remote.run()) == made(local_once.output)


def test_a_plan_from_hollow_shards_in_the_cache(
    hub: Hub, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from synthetic.checkpoint import main

    stop(hub)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for name in ("base", "tuned"):
        storage = cache / f"models--org--{name}"
        (storage / "refs").mkdir(parents=True)
        (storage / "refs" / "main").write_text("1" * 40)
        main([str(storage / "snapshots" / ("1" * 40)), "--shape", "llama-3.2-1b", "--hollow"])
    (tmp_path / "manifest.toml").write_text(
        '[merge]\nmethod = "average"\nbase = "org/base"\noutput = "merged"\n'
        '[[candidates]]\nname = "a"\nmodel = "org/tuned"\n'
    )
    plan = planned(Merge(tmp_path / "manifest.toml", None, []))  # type: ignore[arg-type]
    assert len(plan.steps) == 18
    assert plan.read_bytes > 1 << 30
    assert plan.downloads.download_bytes == 0
    assert hub.requests == []


@pytest.mark.slow
def test_the_result_names_repositories_and_commits_and_nothing_of_the_machine(
    remote: Merge, hub: Hub, tmp_path: Path
) -> None:
    output = remote.run()
    record = read_provenance(output)
    commits = {name: repo.branches["main"] for name, repo in hub.repos.items()}
    assert record["base"] == f"org/base@{commits['org/base']}"
    assert record["candidates"]["task2"] == f"org/candidate-2@{commits['org/candidate-2']}"
    assert record["identity"]["hub"] == commits
    shard = planned(remote).step_shards[1].files[0]
    assert {"hub": shard.digest} in record["identity"]["candidates"]["task0"].values()
    card = (output / "README.md").read_text()
    assert "- org/candidate-3\n" in card
    assert f"**task3**: org/candidate-3 at {commits['org/candidate-3'][:12]}, weight 1" in card
    for path in output.rglob("*"):
        if path.is_file():
            assert str(tmp_path).encode() not in path.read_bytes(), path


@pytest.mark.slow
def test_a_damaged_shard_in_the_cache_is_found_by_reading_all(remote: Merge, hub: Hub) -> None:
    plan = planned(remote)
    path = plan.candidates[1].checkpoint.files[2]
    plan.prefetcher.ensure_local(path)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.resolve().write_bytes(data)
    with pytest.raises(InputError, match=r"org/candidate-1: .* is damaged: its digest is not the hub's"):
        run(planned(remote), full_digest=True)
