"""The rows that each rank of an evaluation has: every batch once, in order, in shares of about equal work."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch

import checkpoints
from merging import Merge, make_merge
from parametrize import slow
from regstream.data.batch_range import BatchRange
from regstream.data.loading import TokenRows
from regstream.errors import InputError
from regstream.evaluation.evaluation_plan import EvaluationPlan
from regstream.evaluation.layerwise_pass import LayerwisePass, OpenedModel
from regstream.evaluation.metrics import make_metric
from regstream.evaluation.sums import Place, Sums, add_up, as_record
from regstream.events import ignore_event
from regstream.planning.plan import Plan
from regstream.planning.rank_share import share_of
from regstream.ranks.environment import RankId
from regstream.ranks.group import Ranks
from regstream.storage.evaluation_folder import evaluation_folder
from regstream.storage.run_folder import RunFolder

NUM_ROWS = (13, 4)


@pytest.fixture(scope="module")
def merge(tmp_path_factory: pytest.TempPathFactory) -> Merge:
    folder = tmp_path_factory.mktemp("rows")
    table = '[candidates.evaluation]\npath = "held-{}.jsonl"\nfield = "input_ids"\nbatch_rows = 1'
    merge = make_merge(folder, layers=1, candidates=2, num_rows=4, hidden=16, candidate=table.format)
    for index, count in enumerate(NUM_ROWS):
        rows = checkpoints.random_rows(checkpoints.VOCABULARY, [20] * count, seed=index)
        checkpoints.write_token_rows(folder / f"held-{index}.jsonl", rows)
    return merge


def evaluation_of(plan: Plan) -> EvaluationPlan:
    """Of two models, the second on the second candidate's rows alone."""
    metric = make_metric(plan, ignore_event)
    datasets = [metric.datasets, {"task1": metric.datasets["task1"]}]
    models = (OpenedModel(number=n, name=str(n), weights=plan.base, datasets=d) for n, d in enumerate(datasets))
    layers = LayerwisePass(model=plan.model, models=tuple(models), dtype=plan.compute_dtype, metric=metric)
    return EvaluationPlan.of(plan, [layers])


@pytest.mark.parametrize("size", [1, 2, slow(5), 30])
def test_every_batch_is_one_ranks(merge: Merge, size: int) -> None:
    plan = merge.plan()
    shares = [evaluation_of(share_of(plan, RankId(rank=rank, size=size))) for rank in range(size)]
    for name in ("task0", "task1"):
        rows = [share.passes[0].datasets[name] for share in shares if share.passes and name in share.passes[0].datasets]
        whole = shares[0].whole[0].datasets[name]
        assert isinstance(whole, TokenRows)
        found = [ids for own in rows for index in range(len(own.batches)) for ids in _token_ids(own, index)]
        expected = [ids for index in range(len(whole.batches)) for ids in whole.token_ids(index)]
        assert len(found) == len(expected)
        assert all(map(torch.equal, found, expected))
    work = [sum(step.work for step in share.steps if step.kind == "block") for share in shares]
    total = NUM_ROWS[0] + 2 * NUM_ROWS[1]
    assert sum(work) == total
    assert max(work) <= total / size + 2  # no more than an even share and a batch that goes through both models


def _token_ids(rows: object, index: int) -> list[torch.Tensor]:
    assert isinstance(rows, TokenRows | BatchRange)
    return rows.token_ids(index)


def test_a_share_has_costs_though_it_has_no_rows(merge: Merge) -> None:
    plan = merge.plan()
    alone = evaluation_of(plan)
    shares = [evaluation_of(share_of(plan, RankId(rank=rank, size=18))) for rank in range(18)]
    first, idle = shares[0], shares[-1]
    assert (idle.steps, idle.projections, idle.step_seconds, idle.disk_bytes) == ((), (), (), 0)
    idle.validate()
    first.validate()
    assert 0 < first.disk_bytes < alone.disk_bytes
    assert all(first.projected_bytes(step) <= first.budgets["host"] for step in first.steps)
    assert len({share.key for share in (alone, *shares)}) == 19
    common = {name: part for name, part in alone.identity.items() if name != "device"}
    assert all(share.common_identity == common for share in shares)


def test_the_time_that_is_told_before_is_that_of_a_rank(merge: Merge) -> None:
    plan = merge.plan()
    idle = share_of(plan, RankId(rank=11, size=12))
    assert not any(len(candidate.rows.batches) for candidate in idle.candidates)
    assert idle.evaluation_seconds is not None
    assert idle.evaluation_seconds > 0


def test_sums_of_one_place_are_added_in_their_order() -> None:
    place, other = Place(0, "task0", 2), Place(1, "task0", 2)
    parts = [Sums((0.1, 1.0), 3), Sums((0.2, 2.0), 0), Sums((0.3, 3.0), 5)]
    records = [*(as_record(place, part) for part in parts), as_record(other, Sums((0.7, 1.4), 7))]
    found = add_up(records, Ranks())
    assert found == {place: Sums(((0.1 + 0.2) + 0.3, 6.0), 8), other: Sums((0.7, 1.4), 7)}
    assert found[other].means == (0.7 / 7, 1.4 / 7)
    assert asdict(found[other]).keys() < records[-1].keys()


def test_a_folder_with_an_evaluation_of_a_rank_alone_is_no_runs(tmp_path: Path) -> None:
    output, workdir = tmp_path / "merged", tmp_path / "work"
    whole, rank = RunFolder(workdir, output), RunFolder(workdir / "rank-1", output)
    with evaluation_folder(rank, "key", num_ranks=2):
        whole.check()
        assert whole.has_only_lock
        assert not whole.has_state
        with evaluation_folder(whole, "key", num_ranks=2):
            assert {path.name for path in (workdir / "rank-1").iterdir()} == {_name(workdir)}
    assert not workdir.exists()


def _name(folder: Path) -> str:
    [found] = folder.glob("evaluate-*")
    return found.name


def test_a_persons_folder_with_the_name_of_a_ranks_stays(tmp_path: Path) -> None:
    workdir = tmp_path / "work"
    own = workdir / "rank-1" / "notes.txt"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    (workdir / "rank-2").mkdir()
    for folder in (workdir, workdir / "rank-1"):
        with pytest.raises(InputError, match="regstream did not create this folder"):
            RunFolder(folder, tmp_path / "merged").check()
    own.unlink()
    with evaluation_folder(RunFolder(workdir, tmp_path / "merged"), "key"):
        pass
    assert {path.name for path in workdir.iterdir()} == {"rank-1", "rank-2"}
