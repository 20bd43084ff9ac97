"""A method of one file and one line, with all that a method may ask for: a teacher's forward pass, the merged block as
far as it is solved, and a cross-Gram matrix. The engine knows nothing of it."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import checkpoints
import reference
from merging import make_merge, read_result, worst_difference
from regstream.device.workspace import Workspace
from regstream.linalg.iterated_tikhonov import MeanRows
from regstream.linalg.solve_report import SolveReport
from regstream.methods import METHODS
from regstream.methods.method import MergeRule, Method
from regstream.methods.statistics import GroupStatistics, LinearGroup, TokenCounts
from regstream.methods.stream import Stream

RIDGE = 1e-3


class FollowTeacher(Method):
    """minimise Σᵢ ‖XᵢW − TᵢWᵢ‖² + λ‖W − W₁‖²: X from the merged block, T from the candidate's own forward pass."""

    name: ClassVar[str] = "follow_teacher"

    @property
    def streams(self) -> tuple[Stream, ...]:
        return (Stream.OWN, Stream.MERGED_BLOCK)

    def rule(self, *, is_linear: bool) -> MergeRule:
        return "regress" if is_linear else "average"

    def statistics(self, group: LinearGroup, workspace: Workspace) -> GroupStatistics:
        return _Statistics(group, workspace)

    def memory_terms(self, groups: Sequence[LinearGroup], tokens: TokenCounts) -> Mapping[str, int]:
        values = [2 * group.in_features**2 + sum(group.out_features.values()) * group.in_features for group in groups]
        return {"Gram and cross-Gram sums": 8 * sum(values)}


class _Statistics:
    dtype = torch.float64

    def __init__(self, group: LinearGroup, workspace: Workspace) -> None:
        self.group, self.num_tokens = group, 0
        square = (group.in_features, group.in_features)
        buffers = workspace.buffers(f"sums of {group.name}", {"gram": square, "cross": square}, self.dtype)
        self.gram_II, self.cross_II = (buffer.zero_() for buffer in buffers.values())
        self.rhs_OI = workspace.buffers(f"right-hand sides of {group.name}", group.shapes, self.dtype)
        self.reference: dict[str, Tensor] = {}

    def begin_candidate(self, num_tokens: int, total: int | None = None) -> None:
        del num_tokens, total
        self.cross_II.zero_()

    def add_tokens(self, *inputs_TI: Tensor) -> None:
        teacher_TI, student_TI = (x_TI.double() for x_TI in inputs_TI)
        self.gram_II += student_TI.T @ student_TI
        self.cross_II += teacher_TI.T @ student_TI

    def is_finite(self) -> bool:
        return bool(self.cross_II.isfinite().all())

    def add_candidate(
        self, own: Mapping[str, Tensor], reference: Mapping[str, Tensor] | None, *, weight: float
    ) -> None:
        assert weight == 1.0
        for name, rhs_OI in self.rhs_OI.items():
            if reference is None:
                self.reference[name] = own[name].double().clone()
                rhs_OI.copy_(RIDGE * self.reference[name])
            rhs_OI.add_(own[name].double() @ self.cross_II)

    def sums(self) -> list[Tensor]:
        return [self.gram_II, *self.rhs_OI.values()]

    def solve(self, mean: MeanRows) -> tuple[Mapping[str, Tensor], SolveReport]:
        left_II = self.gram_II + RIDGE * torch.eye(len(self.gram_II), dtype=self.dtype, device=self.gram_II.device)
        for name, rhs_OI in self.rhs_OI.items():
            rhs_OI.copy_(torch.linalg.solve(left_II, rhs_OI.T).T - self.reference[name])
        report = SolveReport(
            group=self.group.name, in_features=len(left_II), linears=tuple(self.rhs_OI), num_tokens=self.num_tokens,
            route="cholesky", condition=1.0, residual=0.0, ridge=0.0, dead_inputs=0,
        )  # fmt: skip
        return self.rhs_OI, report


GROUPS = [
    ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    ["self_attn.o_proj"],
    ["mlp.gate_proj", "mlp.up_proj"],
    ["mlp.down_proj"],
]


def dense(base: nn.Module, candidates: Sequence[nn.Module], rows: Sequence[Sequence[reference.Row]]) -> dict[str, Any]:
    """The same by whole models in float64."""
    average = reference.merge("average", base, candidates, rows)
    merged = deepcopy(base)
    parameters = dict(merged.named_parameters())
    with torch.no_grad():
        parameters["model.norm.weight"].copy_(average["model.norm.weight"])
        for block in range(len(reference.blocks_of(base))):
            blocks = [deepcopy(reference.blocks_of(candidate)[block]) for candidate in candidates]
            teachers = [reference.linear_inputs(c, block, own) for c, own in zip(candidates, rows, strict=True)]
            prefix = f"model.layers.{block}."
            for own in blocks:
                for name, parameter in own.named_parameters():
                    if not any(name == f"{linear}.weight" for group in GROUPS for linear in group):
                        parameter.copy_(average[prefix + name])
            for group in GROUPS:
                students = []
                for own, data in zip(blocks, rows, strict=True):
                    reference.blocks_of(merged)[block] = own
                    students.append(reference.linear_inputs(merged, block, data))
                key = f"{prefix}{group[0]}.weight"
                left_II = sum(x[key].T @ x[key] for x in students) + RIDGE * torch.eye(students[0][key].shape[1])
                for linear in group:
                    name = f"{prefix}{linear}.weight"
                    own_OI = [dict(candidate.named_parameters())[name] for candidate in candidates]
                    terms = [w @ t[key].T @ x[key] for w, t, x in zip(own_OI, teachers, students, strict=True)]
                    solved_OI = torch.linalg.solve(left_II, (sum(terms) + RIDGE * own_OI[0]).T).T
                    for own in blocks:
                        dict(own.named_parameters())[f"{linear}.weight"].copy_(solved_OI)
            reference.blocks_of(merged)[block] = blocks[0]
    return dict(merged.named_parameters())


@pytest.mark.simulated
def test_a_method_with_a_teacher_inside_the_merged_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, FollowTeacher.name, FollowTeacher)
    merge = make_merge(tmp_path, "llama", candidates=2, layers=2, merge={"method": FollowTeacher.name})
    output = merge.run()
    assert not (output / ".regstream").exists()  # both kinds of hidden states are gone
    base = checkpoints.load(merge.folders.base)
    expected = dense(base, [checkpoints.load(folder) for folder in merge.folders.candidates], merge.rows)
    difference, name = worst_difference(read_result(output), {n: p.detach() for n, p in expected.items()})
    assert difference <= 1e-4, f"{name}: {difference:.1e}"
