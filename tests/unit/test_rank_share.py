"""How ranks share a merge: who has which batches, solves which groups, reads, sends and stores what."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from merging import make_merge
from parametrize import slow
from regstream.errors import BudgetError
from regstream.planning.network import Traffic, step_traffic, summed_values
from regstream.planning.plan import Plan
from regstream.planning.rank_share import cut_batches, owners, parameter_owners, share_of
from regstream.planning.reads import reads
from regstream.planning.work import SOLVES, flops_of
from regstream.ranks.environment import ALONE, RankId

ONE_A_BATCH = "batch_rows = 1"
Numbers = Mapping[str, Any]


def plan_of(folder: Path, **options: Any) -> Plan:
    """Of two blocks, with every row a batch unless the options say otherwise."""
    return make_merge(folder, **{"layers": 2, "calibration": ONE_A_BATCH, **options}).plan()


def num_batches(plan: Plan) -> list[int]:
    return [len(candidate.rows.batches) for candidate in plan.candidates]


def check_cut(plan: Plan, cut: list[list[range]]) -> None:
    """Every batch is on one rank, and the list of all, candidate after candidate, is cut into stretches."""
    found = [(candidate, batch) for parts in cut for candidate, part in enumerate(parts) for batch in part]
    assert found == [(candidate, batch) for candidate, n in enumerate(num_batches(plan)) for batch in range(n)]


def forward_flops(share: Plan) -> float:
    return sum(flops for step in share.steps for kind, flops in share.work(step).items() if kind.endswith("forward"))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 24, 40])
def test_every_batch_is_on_one_rank(tmp_path: Path, size: int) -> None:
    plan = plan_of(tmp_path)
    cut = cut_batches(plan, size)
    assert len(cut) == size
    check_cut(plan, cut)
    most = max(sum(map(len, parts)) for parts in cut)
    assert most == 1 if size >= 24 else most < 24 / size + 4


@pytest.mark.parametrize("size", [2, 3, 4])
def test_ranks_compute_about_equally_much(tmp_path: Path, size: int) -> None:
    manifest = make_merge(tmp_path, layers=1, calibration=ONE_A_BATCH, num_rows=12)
    rows = tmp_path / "task0.jsonl"  # ten times the rows of the others
    rows.write_text(rows.read_text() * 10)
    plan = manifest.plan()
    assert num_batches(plan) == [120, 12, 12]
    check_cut(plan, cut_batches(plan, size))
    shares = [forward_flops(share_of(plan, RankId(rank=rank, size=size))) for rank in range(size)]
    assert max(shares) < 1.1 * sum(shares) / size


def test_a_method_that_divides_by_norms_has_each_candidate_on_one_rank(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, merge={"method": "regfilter"})
    for size in (2, 3, 5):
        cut = cut_batches(plan, size)
        check_cut(plan, cut)
        assert all(len(part) in (0, n) for parts in cut for part, n in zip(parts, num_batches(plan), strict=True))


def test_a_method_without_calibration_has_no_batches_to_share(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, merge={"method": "average"})
    assert cut_batches(plan, 2) == [[range(0)] * 3] * 2


def test_solves_and_measurements_are_shared_out(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    step = plan.steps[1]
    (groups,) = plan.passes(step)
    solvers = owners(step, groups, 2)
    assert list(solvers) == list(step.regressed)
    assert set(solvers.values()) == {0, 1}
    # The most expensive ones are on different ranks.
    assert solvers["input of mlp.gate_proj"] != solvers["input of mlp.down_proj"]
    measurers = parameter_owners(step, plan.passes(step), 2)
    assert measurers.keys() == step.shapes.keys()
    assert all(measurers[p.name] == solvers[p.group] for p in step.parameters if p.group is not None)
    norms = [measurers[parameter.name] for parameter in step.not_regressed]
    assert sorted(norms) == [0, 1]


def test_one_rank_costs_what_a_merge_costs(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    share = share_of(plan, ALONE)
    assert share.projections == plan.projections
    assert [share.work(step) for step in plan.steps] == [plan.work(step) for step in plan.steps]
    needed = [[(folder, needed) for folder, needed, _ in costs.disks] for costs in (share, plan)]
    assert needed[0] == needed[1]
    (alone,) = plan.on_ranks(1).traffic[1]
    assert alone == Traffic()


@pytest.mark.parametrize(
    "keys",
    [
        {"method": "regmean++"},
        {"method": "regmean"},
        {"method": "regfilter"},
        slow({"method": "featcal"}),
        slow({"method": "ties"}),
    ],
    ids=lambda keys: keys["method"],
)
@pytest.mark.parametrize("size", [2, 30])
def test_ranks_together_compute_what_one_does(tmp_path: Path, keys: Numbers, size: int) -> None:
    plan = plan_of(tmp_path, merge=keys)
    total: Counter[str] = Counter()
    for share in plan.on_ranks(size).ranks:
        for step in share.steps:
            total.update(share.work(step))
    alone = sum((Counter(plan.work(step)) for step in plan.steps), Counter[str]())
    # Of a candidate on several ranks, each multiplies its own tokens with weights; of few, without their Gram matrix.
    exact = alone.keys() - {"right-hand sides"} - ({"Gram matrices"} if size > 2 else set())
    for kind in exact:
        assert total[kind] == pytest.approx(alone[kind]), kind
    assert total["right-hand sides"] > 0.5 * alone["right-hand sides"] or not plan.method.needs_calibration()


def test_solves_are_their_owners_alone(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    shares = plan.on_ranks(4).ranks
    solves = [share.work(share.steps[1])[SOLVES] for share in shares]
    assert all(solves)
    assert sum(solves) == pytest.approx(plan.work(plan.steps[1])[SOLVES])


def read_counts(plan: Plan, step: int) -> Counter[tuple[str, str]]:
    """How often a step reads each tensor, by the checkpoint's folder and the tensor's shape and place."""
    found = reads(plan, plan.steps[step], plan.passes(plan.steps[step]))
    return Counter((spec.file.parent.name, f"{spec.shape} at {spec.begin}") for specs in found for spec in specs)


def test_a_rank_reads_the_blocks_of_its_candidates_and_the_reference(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, resources='device = "cpu"\ndiagnostics = false')
    first, second, third = plan.on_ranks(3).ranks
    names = [candidate.checkpoint.folder.name for candidate in plan.candidates]
    block = plan.steps[1]
    for share, name in ((first, names[0]), (second, names[1]), (third, names[2])):
        own = Counter(folder for folder, _ in read_counts(share, 1).elements())
        assert own[name] >= len(block.parameters)
        # Beside its own block, linears of the first candidate; the first rank reads what is averaged.
        others = block.num_regressed if share is not first else len(block.not_regressed)
        other = names[0] if share is not first else names[1]
        assert own[other] == others
    assert not read_counts(second, 0)
    assert read_counts(first, 0) == read_counts(plan, 0)


def test_a_tensor_is_measured_on_one_rank(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    base = plan.base.folder.name
    measured = Counter(
        key for share in plan.on_ranks(3).ranks for key in read_counts(share, 1).elements() if key[0] == base
    )
    assert measured == Counter(key for key in read_counts(plan, 1).elements() if key[0] == base)


def test_what_two_ranks_send(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, calibration="batch_rows = 4")
    costs, step = plan.on_ranks(2), plan.steps[1]
    # Each has a candidate and one of the two batches of another.
    assert [[len(candidate.part or ()) for candidate in rank.candidates] for rank in costs.ranks] == [
        [2, 1, 0],
        [0, 1, 2],
    ]
    assert owners(step, plan.passes(step)[0], 2) == {
        "input of self_attn.q_proj": 1,
        "input of self_attn.o_proj": 0,
        "input of mlp.gate_proj": 1,
        "input of mlp.down_proj": 0,
    }
    # By group its Gram matrix, of one panel, and right-hand sides.
    query, output, gate, down = 32**2 + 64 * 32, 32**2 + 32 * 32, 32**2 + 128 * 32, 64**2 + 32 * 64
    sketches = 258 * 2 * (32 + 32), 258 * 2 * (32 + 64)
    sums = query + output + gate + down
    first = 4 * (sums + sketches[0])
    second = 4 * (sums + sketches[1] + 64 * 32 + 128 * 32)
    first += 4 * (3 * 32**2 + 3 * 64 * 32 + 2 * 32)  # the block
    assert step_traffic(costs.ranks, step, plan.passes(step)) == [Traffic(first, second), Traffic(second, first)]
    assert costs.traffic_of(0).sent == sum(ranks[0].sent for ranks in costs.traffic)


def test_of_wide_sums_one_triangle_is_sent(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, layers=1)
    step = plan.steps[1]
    wide = replace(step, parameters=tuple(replace(p, shape=(8, 1200)) for p in step.parameters if p.linear))
    group = "input of self_attn.o_proj"
    # Panels of 512 columns: what is above the second and the third, and the rows of all diagonal blocks.
    assert summed_values(plan, wide, group) == 512 * 512 + 1024 * 176 + 1200 * 512 + 8 * 1200


@pytest.mark.parametrize("size", [2, 3, 6])
def test_what_is_sent_is_received(tmp_path: Path, size: int) -> None:
    for method in ("regmean++", "regfilter"):  # whose groups are solved in turn
        plan = plan_of(tmp_path / method, merge={"method": method})
        for ranks in plan.on_ranks(size).traffic:
            assert sum(traffic.sent for traffic in ranks) == sum(traffic.received for traffic in ranks)
            assert all(traffic.received for traffic in ranks[1:])


def test_memory_has_room_for_what_is_exchanged(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    share = plan.on_ranks(2).ranks[0]
    terms = share.projections[1].terms["host"]
    assert terms["exchange"] == 3 * 4 * (4 << 20)
    assert "exchange" not in plan.projections[1].terms["host"]
    alone = plan.projections[1].terms["host"]
    assert terms["Gram sums"] == alone["Gram sums"]
    assert terms["stored tokens"] <= alone["stored tokens"]


def test_passes_are_the_same_on_all_ranks(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    tight = replace(plan, available={"host": 0})  # which makes the most passes
    costs = tight.on_ranks(3)
    passes = {share.passes(share.steps[1]) for share in costs.ranks}
    assert passes == {tuple((group,) for group in plan.steps[1].regressed)}


def test_ranks_share_a_machines_disk(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    together, apart = plan.on_ranks(4), plan.on_ranks(4, machines=4)
    here = sum(share.disk_bytes for share in together.ranks)
    assert [needed for _, needed, _ in together.ranks[2].disks] == [pytest.approx(here, abs=8)]
    assert [needed for _, needed, _ in apart.ranks[2].disks] == [pytest.approx(apart.ranks[2].disk_bytes, abs=8)]
    # The first has the result, each other one copies of the stem and of a step, and hidden states of its own.
    stem, block = plan.written_bytes(plan.steps[0]), plan.written_bytes(plan.steps[1])
    assert stem + block < together.ranks[2].disk_bytes < plan.disk_bytes


def test_ranks_evict_nothing(tmp_path: Path) -> None:
    plan = make_merge(tmp_path, layers=1, resources='device = "cpu"\ndisk = "64KiB"').plan()
    share = plan.on_ranks(2).ranks[0]
    assert all(shards.max_bytes is not None for shards in plan.step_shards)
    assert all(shards.max_bytes is None for shards in share.step_shards)
    with pytest.raises(BudgetError, match=r"^2 of 2 ranks need .* budget is 64 KiB; raise it$"):
        share.validate()


class Rates:
    """A FLOP takes a second, and so does each byte that is read."""

    def seconds(self, work: Mapping[str, float], *, read_bytes: int = 0, write_bytes: int = 0) -> float:
        del write_bytes
        return sum(flops_of(work).values()) + read_bytes


def test_the_time_of_several_ranks(tmp_path: Path) -> None:
    plan, rates = plan_of(tmp_path), Rates()
    costs = plan.on_ranks(3)
    times = costs.times(1.0, rates)
    assert times is not None
    assert times.alone == pytest.approx(plan.flops + plan.read_bytes)
    expected = 0.0
    for step in plan.steps:
        works = [flops_of(share.work(step)) for share in costs.ranks]
        solves = [work.get(SOLVES, 0.0) for work in works]
        read = [share.projections[step.index].read_bytes for share in costs.ranks]
        expected += max(sum(w.values()) - s + r for w, s, r in zip(works, solves, read, strict=True)) + max(solves)
        expected += max(max(traffic.sent, traffic.received) for traffic in costs.traffic[step.index])
    assert times.together == pytest.approx(expected)
    faster = costs.times(math.inf, rates)
    assert faster is not None
    assert times.factor < faster.factor < 3
    assert times.factor == times.alone / times.together


def test_more_machines_than_ranks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 ranks cannot be on 3 machines"):
        plan_of(tmp_path).on_ranks(2, machines=3)
