"""The summary of a merge, beside numbers computed by hand."""

import math

import pytest

from regstream.output.merge_summary import (
    ChangeTotal,
    GroupResidual,
    LostCandidate,
    LostParameters,
    MergeSummary,
    UnchangedCandidate,
    describe_lost,
    percent,
)
from regstream.output.record_schema import (
    CandidateChange,
    CandidateResidual,
    ChangeRecord,
    ResidualRecord,
    StepRecord,
)


def change(parameter: str, rule: str = "average", **candidates: tuple[float, float | None]) -> ChangeRecord:
    """What became of a parameter; a candidate's norm and the share of it that was kept."""
    found = {name: CandidateChange(norm=norm, kept=kept) for name, (norm, kept) in candidates.items()}
    return ChangeRecord(parameter=parameter, rule=rule, base_norm=1.0, candidates=found)


def residual(group: str, **candidates: tuple[float, float]) -> ResidualRecord:
    """The residuals of the merged weights and of the mean's."""
    found = {name: CandidateResidual(merged=merged, mean=mean) for name, (merged, mean) in candidates.items()}
    return ResidualRecord(group=group, candidates=found)


def step(name: str, *entries: ChangeRecord | ResidualRecord) -> StepRecord:
    residuals = [entry for entry in entries if isinstance(entry, ResidualRecord)]
    changes = [entry for entry in entries if isinstance(entry, ChangeRecord)]
    return StepRecord(name=name, shard="model.safetensors", solves=[], residuals=residuals, changes=changes)


def summary(*changes: ChangeRecord) -> MergeSummary:
    return MergeSummary.of([step("block 0", *changes)])


def test_changes_are_totalled_by_their_squared_norms() -> None:
    found = MergeSummary.of(
        [
            step("stem", change("embed.weight", math=(3.0, 1.0), code=(1.0, 0.5))),
            step(
                "block 0",
                change("q.weight", math=(4.0, 0.5), code=(0.0, None)),
                change("norm.weight", math=(0.0, None)),
            ),
        ]
    )
    assert [(total.candidate, total.norm) for total in found.changes] == [("math", 5.0), ("code", 1.0)]
    assert [total.kept for total in found.changes] == pytest.approx([(9 * 1.0 + 16 * 0.5) / 25, 0.5])
    assert found.changes_by_step == (
        ChangeTotal(candidate="math", step="stem", norm=3.0, base_norm=1.0, kept=1.0),
        ChangeTotal(candidate="code", step="stem", norm=1.0, base_norm=1.0, kept=0.5),
        ChangeTotal(candidate="math", step="block 0", norm=4.0, base_norm=math.sqrt(2), kept=0.5),
        ChangeTotal(candidate="code", step="block 0", norm=0.0, base_norm=1.0, kept=None),
    )
    assert found.changes[0].describe() == "math changed the base by 289 % of its norm; the merged model kept 68 % of it"
    assert found.changes_by_step[3].describe() == "code changed nothing in block 0"


def test_changes_whose_squares_underflow() -> None:
    (total,) = summary(change("q", a=(3e-200, 1.0)), change("k", a=(4e-200, 0.0))).changes
    assert total.norm == pytest.approx(5e-200, abs=0)
    assert total.kept == pytest.approx(9 / 25)


def test_residuals_are_sorted_and_averaged_as_root_mean_squares() -> None:
    found = MergeSummary.of(
        [
            step("block 0", residual("q k v", math=(0.3, 0.6), code=(0.1, 0.1))),
            step("block 1", residual("q k v", math=(0.4, 0.8)), residual("down", code=(0.35, 0.2))),
        ]
    )
    assert [(group.step, group.candidate, group.merged) for group in found.residuals_by_group] == [
        ("block 1", "math", 0.4), ("block 1", "code", 0.35), ("block 0", "math", 0.3), ("block 0", "code", 0.1),
    ]  # fmt: skip
    assert found.residuals_by_group[1] == GroupResidual(
        step="block 1", group="down", candidate="code", merged=0.35, mean=0.2
    )
    total = found.residuals[0]
    assert (total.candidate, total.num_groups) == ("math", 2)
    assert [total.merged, total.mean] == pytest.approx([0.5 / math.sqrt(2), 1 / math.sqrt(2)])
    assert found.residuals_by_group[0].describe() == (
        "block 1, q k v: the merged weights miss what math computes by 40 %, the plain mean by 80 %"
    )


def test_a_candidate_that_changed_nothing_is_named() -> None:
    found = summary(change("q.weight", math=(2.0, 0.5), copy=(0.0, None)), change("k.weight", copy=(0.0, None)))
    assert found.lost == (UnchangedCandidate(candidate="copy"),)
    assert 'candidate "copy" equals the base in every parameter' in found.lost[0].describe()


@pytest.mark.parametrize(("kept", "is_lost"), [(0.049, True), (-0.2, True), (0.051, False)])
def test_a_change_is_lost_below_a_tenth_of_what_the_mean_of_two_keeps(kept: float, is_lost: bool) -> None:
    found = summary(change("q.weight", "regress", math=(2.0, kept), code=(2.0, 0.9)))
    expected = (LostCandidate(candidate="math", norm=2.0, kept=kept),) if is_lost else ()
    assert found.lost == expected


def test_parameters_that_one_rule_lost_are_named_together_with_their_share() -> None:
    found = MergeSummary.of(
        [
            step("stem", change("embed.weight", "base", math=(3.0, 1e-9), code=(0.0, None))),
            step("block 0", change("layers.0.q.weight", "regress", math=(4.0, 0.5), code=(1.0, 0.5))),
            step("head", change("lm_head.weight", "base", math=(12.0, 0.0), code=(0.0, None))),
        ]
    )
    (lost,) = (entry for entry in found.lost if isinstance(entry, LostParameters))
    assert (lost.candidate, lost.rule, lost.parameters) == ("math", "base", ("embed.weight", "lm_head.weight"))
    assert [lost.norm, lost.share] == pytest.approx([math.sqrt(153), 153 / 169])
    assert lost.describe() == (
        'candidate "math": its change of embed.weight, lm_head.weight (90.5 % of its whole change) is lost: the result'
        " has the base's"
    )


def test_candidates_that_lost_the_same_parameters_share_a_sentence() -> None:
    found = summary(
        change("embed.weight", "base", math=(1.0, 0.0), code=(1.0, 0.0), chat=(0.0, None)),
        change("q.weight", "regress", math=(1.0, 0.5), code=(3.0, 0.5), chat=(0.0, None)),
    )
    assert describe_lost(found.lost) == [
        'candidate "chat" equals the base in every parameter: it adds nothing to the merge',
        'candidates "math" (50 % of its whole change), "code" (10 %): their changes of embed.weight are lost: the'
        " result has the base's",
    ]


def test_of_a_parameter_of_one_candidate_the_others_lose_theirs() -> None:
    found = summary(
        change("head.weight", "candidate", math=(1.0, 0.999), code=(1.0, 0.2)),
        change("q.weight", "regress", math=(9.0, 0.5), code=(9.0, 0.5)),
    )
    (lost,) = found.lost
    assert isinstance(lost, LostParameters)
    assert (lost.candidate, lost.rule, lost.parameters) == ("code", "candidate", ("head.weight",))


def test_a_method_that_drops_a_whole_parameter_is_named_as_the_reason() -> None:
    found = summary(change("q", "combine", a=(1.0, 0.0), b=(1.0, 1.0)), change("k", "combine", a=(2.0, 0.7)))
    assert [entry.describe() for entry in found.lost] == [
        'candidate "a": its change of q (20 % of its whole change) is lost: the rule "combine" kept none'
    ]


def test_a_record_without_residuals_and_changes_sums_up_to_nothing() -> None:
    found = MergeSummary.of([step("stem"), step("block 0")])
    assert found == MergeSummary(changes=(), changes_by_step=(), residuals=(), residuals_by_group=(), lost=())


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0 %"), (0.1234, "12.3 %"), (1.0, "100 %"), (9.99, "999 %"), (123.4, "12,340 %")]
)
def test_shares_as_text(share: float, text: str) -> None:
    assert percent(share) == text
