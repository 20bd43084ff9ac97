"""The fields of a result's record, `regstream.json`, and what each means.

The JSON schema that is published with the package, `regstream.schema.json`, is generated from here. Dictionaries
`candidates` are keyed by the names of candidates.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict


class _Entry(BaseModel):
    # Entries of other versions are kept; a reader needs those that are named here.
    model_config = ConfigDict(strict=True, extra="allow", frozen=True, use_attribute_docstrings=True)


class FileRecord(_Entry):
    """A file of the result."""

    bytes: int
    """Its size."""
    sha256: str
    """The SHA-256 of all its bytes."""
    sampled: str | None = None
    """Of a shard: the SHA-256 of samples of it, by which a changed one is found sooner."""


class SolveRecord(_Entry):
    """How the regression of one input group was solved."""

    group: str
    """The input group: the linears of a block that read the same tensor."""
    in_features: int
    """The order of the system."""
    linears: list[str]
    """The linears of the group."""
    num_tokens: int
    """The calibration tokens of all candidates; of an expert, those that were routed to it."""
    route: str
    """`cholesky`; `refined`: with iterative refinement in float64; `ridge`: with a ridge; `spectral`: eigenvalues;
    `mean`: of an expert that no token was routed to."""
    condition: float
    """An estimate from below of the condition number of the matrix, scaled to a unit diagonal."""
    residual: float
    """The relative residual of the solve itself, over random combinations of right-hand sides."""
    ridge: float
    """The ridge, relative to the median of the matrix's diagonal."""
    dead_inputs: int
    """Inputs, or with the route `spectral` directions, that keep the candidates' mean or the method's prior."""


class CandidateResidual(_Entry):
    """The relative regression residual of a candidate, ‖X(W − Wᵢ)ᵀ‖/‖XWᵢᵀ‖ on its calibration tokens X."""

    merged: float | None
    """With the merged weights as W; null where the candidate's outputs XWᵢᵀ are all zero."""
    mean: float | None
    """With the plain mean of the candidates as W."""


class ResidualRecord(_Entry):
    """What the linears of an input group compute, compared with what those of each candidate do on the same inputs."""

    group: str
    """The input group."""
    candidates: dict[str, CandidateResidual]
    """Its residuals, estimated from a sketch of the tokens."""


class CandidateChange(_Entry):
    """A candidate's change of one parameter, Δᵢ = Wᵢ − W₀, and what the merged model has of it."""

    norm: float
    """‖Δᵢ‖, the Frobenius norm."""
    kept: float | None
    """⟨W − W₀, Δᵢ⟩/‖Δᵢ‖²: 1 where the merged parameter has the whole change, 0 where it has none of it; null where
    there is no change."""


class ChangeRecord(_Entry):
    """What became of the candidates' changes of one parameter."""

    parameter: str
    """Its name in the files."""
    rule: str
    """What became of the parameter: regress, calibrate, average, base, candidate or combine."""
    base_norm: float
    """‖W₀‖, the Frobenius norm of the base's."""
    candidates: dict[str, CandidateChange]
    """The candidates that have the parameter."""


class SettingValues(_Entry):
    """What a step has of a setting that is not the same everywhere."""

    values: list[float]
    """Its values."""
    parameters: list[int]
    """How many parameters of the step have each."""


class SettingRecord(_Entry):
    """A setting that is not the same for all parameters."""

    key: str
    """A number of the method, or of a candidate `scale` or `share`: its weight over the mean of all weights."""
    candidate: str | None
    """The candidate; null where it is the method's."""
    steps: dict[str, SettingValues]
    """By the name of the step, where it decides something."""


class StepRecord(_Entry):
    """One step: the stem, a block, or the head."""

    name: str
    """`stem`, `block 0`, …, `head`."""
    shard: str
    """The file that holds its tensors."""
    solves: list[SolveRecord]
    """One for each input group that was regressed."""
    residuals: list[ResidualRecord] = []
    """One for each input group that was regressed."""
    changes: list[ChangeRecord] = []
    """One for each parameter."""


class EvaluationRow(_Entry):
    """The scores of one model."""

    model: str
    """`base`, `mean`, a candidate, or the method of the merge."""
    scores: dict[str, float]
    """By the candidate whose held-out rows they are; candidates have their own alone, if not evaluated on all."""


class EvaluationRecord(_Entry):
    """What `regstream evaluate` found."""

    metric: str
    """What a score is."""
    higher_is_better: bool
    """Whether a higher score is a better one."""
    datasets: list[str]
    """The candidates that have held-out rows."""
    rows: list[EvaluationRow]
    """One for each model."""


class BiasRecord(_Entry):
    """The distance of a model's hidden states from a candidate's own, on its held-out rows, by `regstream bias`."""

    model: str
    """`mean`, or the method of the merge."""
    dataset: str
    """The candidate."""
    depth: int
    """0: what enters the first block; d: what leaves block d − 1; of a decoder after an encoder, block d − 2."""
    after: str = ""
    """What these hidden states leave: stem, block 0, …; empty in records of earlier versions."""
    l1: float
    """The mean absolute difference of a feature."""
    cosine: float
    """1 − the mean cosine similarity of tokens."""


class IdentityRecord(_Entry):
    """What decides the result: another run with the same identity writes the same bytes."""

    manifest: dict[str, Any]
    """The meaning of the manifest."""
    hub: dict[str, str] = {}
    """The commit of each model of the hub."""


class ResultRecord(_Entry):
    """The record of a finished merge. Apart from `evaluation` and `bias` it depends on the inputs alone."""

    regstream: str
    """The version that made the result."""
    method: str
    """The method of the merge."""
    manifest: str
    """The manifest, without paths of the machine."""
    base: str | None
    """The base: a hub id with a commit, or the name of a folder; null of a merge without one."""
    candidates: dict[str, str | dict[str, str]]
    """The candidates: likewise; of an adapter with its model."""
    prior_model: str | None = None
    """The model that the regression corrects, if the manifest names one."""
    settings: list[SettingRecord] = []
    """The settings that are not the same for all parameters."""
    identity: IdentityRecord
    """What decides the result, with digests of all inputs."""
    inputs: dict[str, str] | None = None
    """The digests of inputs by which a rerun finds that nothing has changed; null where they prove nothing."""
    warnings: list[str] = []
    """What the plan warned of."""
    ignored: dict[str, list[str]] = {}
    """Tensors of inputs that have no place in the merged model."""
    steps: list[StepRecord]
    """The steps, in order."""
    evaluation: EvaluationRecord | None = None
    """The latest evaluation of the result, if there is one."""
    bias: list[BiasRecord] | None = None
    """The latest measurement of hidden states, if there is one."""
    files: dict[str, FileRecord]
    """The files of the result."""
    sha256: str
    """The SHA-256 of this record without this entry."""
