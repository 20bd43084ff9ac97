"""The interface of a method. Plan and engine use it and never test a method's type.

Loading this file imports no torch, so that a manifest is validated against its method's options without it.
"""

from abc import ABC
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from regstream.methods.search_space import Settings, combinations
from regstream.methods.statistics import GroupStatistics, LinearGroup, NormGroup, TokenCounts
from regstream.methods.stream import Prefix, Stream
from regstream.methods.tensor_reads import TensorReads
from regstream.methods.tensor_source import TensorSource

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from regstream.device.workspace import Workspace
    from regstream.linalg.solve_report import SolveReport

#: What becomes of a parameter. `candidate` takes one candidate's tensor; `combine` is the method's own formula for
#: parameters that it does not regress. `calibrate` is for biases of regressed linears and parameters of norms, which
#: are solved for as the weights of linears are; of another parameter it means `combine`.
MergeRule = Literal["regress", "calibrate", "average", "base", "candidate", "combine"]


class MethodOptions(BaseModel):
    """The keys of `[merge]` that a method adds, each with its type, range and default.

    The string below a key describes it: what is expected there; what it means. `Tries` among a key's annotations names
    the values that `regstream tune` tries.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Method(ABC):
    """A way of merging. What it does not define is the weighted mean of the candidates."""

    name: ClassVar[str]
    #: What the method adds to `[merge]`.
    Options: ClassVar[type[MethodOptions]] = MethodOptions
    #: Whether `combine` multiplies each candidate by a `scale` of its own, where `[[candidates]]` has one.
    reads_scales: ClassVar[bool] = False
    #: The same for a `density` of its own.
    reads_densities: ClassVar[bool] = False
    #: Whether `combine` multiplies candidates by their weights.
    reads_weights: ClassVar[bool] = True
    #: Whether `combine` draws random masks, which follow from the seed.
    draws_masks: ClassVar[bool] = False
    #: Whether anything is done with the base beside what the manifest says.
    needs_base: ClassVar[bool] = True
    #: The fewest and the most candidates; None: any number.
    num_candidates: ClassVar[tuple[int, int | None]] = (1, None)
    #: Whether `combine` reads matrices, which are on the device that computes, and not parts, which are on the host.
    combines_matrices: ClassVar[bool] = False
    #: What to do about a solve that is not well determined.
    advice: ClassVar[str] = "use more calibration rows"

    def __init__(self, options: MethodOptions) -> None:
        self.options = options

    @property
    def streams(self) -> tuple[Stream, ...]:
        """What is observed for each candidate; empty for a method that looks at weights only."""
        return ()

    @property
    def prior(self) -> "Method | None":
        """The method whose result is the reference of the regression; None where the reference decides nothing."""
        return None

    @property
    def own_options(self) -> tuple[str, ...]:
        """The options that a candidate may have of its own, in place of the merge's."""
        return ("scale",) * self.reads_scales + ("density",) * self.reads_densities

    @property
    def reads_prior_model(self) -> bool:
        """Whether `combine` reads the checkpoint that a manifest names as `prior_model`."""
        return self.combine_reads(1).prior_model > 0

    def search_space(self) -> tuple[Settings, ...]:
        """The settings that `regstream tune` tries: by default every combination of the values that options name.

        A method whose options exclude one another lists its settings itself, each with the keys that it reads.
        """
        return combinations(self.Options)

    @property
    def splits_candidates(self) -> bool:
        """Whether the sums of a candidate are those of parts of its tokens, which may be on several ranks."""
        return True

    def needs_calibration(self) -> bool:
        """Whether the method runs calibration sets through the blocks."""
        return bool(self.streams)

    def prefixes(self) -> tuple[Prefix, ...]:
        """The hidden states that are stored from block to block."""
        return tuple(dict.fromkeys(stream.prefix for stream in self.streams))

    def solves_groups_in_turn(self) -> bool:
        """Whether the statistics of an input group depend on the solved weights of the groups before it."""
        return Stream.MERGED_BLOCK in self.streams

    def regresses_experts(self) -> bool:
        """Whether experts of mixtures are regressed as linears are, if these are.

        Each forward pass routes other tokens to an expert, so that what several passes observe does not belong
        together; and where groups are solved in turn, each expert would take a pass of its own.
        """
        return len(self.streams) <= 1 and not self.solves_groups_in_turn()

    def runs_candidates(self) -> bool:
        """Whether calibration sets run through candidates' own blocks."""
        return any(stream.runs_candidate for stream in self.streams)

    def runs_own_blocks_only(self) -> bool:
        """Whether calibration sets run through no other block than candidates' own."""
        return all(stream.runs_candidate for stream in self.streams)

    def rule(self, *, is_linear: bool) -> MergeRule:
        """What becomes of a parameter without a rule in the manifest; `is_linear`: a linear's weight in a block."""
        del is_linear
        return "average"

    def rule_outside(self, published: MergeRule) -> MergeRule:
        """What becomes of a part outside the blocks of which the manifest says nothing.

        `published` is what the recipes of RegMean++ have for it, which methods that regress take by default.
        """
        return published if self.needs_calibration() else self.rule(is_linear=False)

    def unused_options(self) -> Mapping[str, str]:
        """Options without effect beside the others, each with the reason."""
        return {}

    def combine(self, source: TensorSource) -> "Iterator[Tensor]":
        """Yield the merged values of a tensor where the rule is "combine": flat, in pieces one after another."""
        raise NotImplementedError(f"{self.name} combines nothing")

    def combine_reads(self, num_candidates: int) -> TensorReads:
        """How many times `combine` reads all values of its tensor, at most: by default those of base and candidates
        once."""
        del num_candidates
        return TensorReads(base=1, candidates=1)

    def combine_flops(self, shape: tuple[int, ...], num_candidates: int) -> float:
        """FLOP of `combine`'s products and decompositions of matrices, in float64; a linear's weight is (out, in)."""
        del shape, num_candidates
        return 0.0

    def combine_bytes(
        self, shape: tuple[int, ...], num_candidates: int, *, is_linear: bool, device: "torch.device"
    ) -> int:
        """Bytes that `combine` holds at once, at most; a linear's weight is (out, in). Of parts, bytes of the host."""
        raise NotImplementedError(f"{self.name} combines nothing")

    def statistics(self, group: LinearGroup, workspace: "Workspace") -> GroupStatistics:
        """Empty statistics of one input group, in buffers of the workspace."""
        raise NotImplementedError(f"{self.name} regresses nothing")

    def norm_statistics(self, norm: NormGroup, workspace: "Workspace") -> GroupStatistics:
        """Empty statistics of one norm."""
        raise NotImplementedError(f"{self.name} calibrates nothing")

    def memory_terms(self, groups: Sequence[LinearGroup], tokens: TokenCounts) -> Mapping[str, int]:
        """Bytes that the statistics of these groups hold together, by what holds them."""
        del groups, tokens
        return {}

    def norm_terms(self, norms: Sequence[NormGroup], values: int, itemsize: int) -> Mapping[str, int]:
        """Bytes that it takes to observe these norms, on batches of so many values of so many bytes at most."""
        del norms, values, itemsize
        return {}

    def solve_bytes(self, group: LinearGroup, device: "torch.device") -> int:
        """Bytes that a solve takes on a device beside `memory_terms` while it runs."""
        del group, device
        return 0

    def sums_dtype(self) -> "torch.dtype":
        """The dtype of the statistics, and of the products that form and solve them."""
        import torch

        return torch.float32

    def flops(self, group: LinearGroup, tokens: TokenCounts) -> Mapping[str, float]:
        """FLOP to form the statistics of a group and to solve it, by kind of work as the profiler names them."""
        del group, tokens
        return {}

    def solve_warning(self, report: "SolveReport", dtype: "torch.dtype") -> str | None:
        """A warning about a solve on activations of a dtype, without the advice; None if it is well determined."""
        del report, dtype
        return None
