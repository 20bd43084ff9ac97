"""Warns of manifest settings that have no effect on this merge, each with the reason."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from pydantic import BaseModel

from regstream.manifest.rule_table import Setting
from regstream.manifest.schema import Calibration, Candidate, Manifest, Merge
from regstream.manifest.shares import NEGLIGIBLE
from regstream.methods import make_method
from regstream.methods.method import Method
from regstream.methods.stream import Stream
from regstream.models.architecture.architecture import Architecture
from regstream.planning.step import Step
from regstream.planning.unused_rules import replaced_everywhere, unused_rules


@dataclass(frozen=True, kw_only=True)
class _Context:
    """Everything that decides whether a setting is read."""

    manifest: Manifest
    architecture: Architecture
    device_type: str
    steps: Sequence[Step]

    @property
    def reads_images(self) -> bool:
        return self.architecture.modality == "pixel_values"

    @property
    def merger(self) -> Method:
        """The method, with its options."""
        return make_method(self.manifest.merge.method, self.manifest.merge.options)

    @property
    def regresses(self) -> bool:
        return self.manifest.merge.regresses

    def reads_rows_of(self, candidate: Candidate) -> bool:
        """Whether a candidate's calibration set is read, by the merge or by a tuning that holds its rows out."""
        is_tuned = bool(self.merger.search_space())
        return self.regresses or (is_tuned and candidate.evaluation is None and self.architecture.is_scored_by_loss)

    @property
    def reads_scales(self) -> bool:
        """Whether the method multiplies each candidate by a scale of its own."""
        return self.merger.reads_scales

    @property
    def reads_densities(self) -> bool:
        """Whether the method reads a density of each candidate."""
        return self.merger.reads_densities

    @property
    def reads_weights(self) -> bool:
        """Whether the method reads weights, or some parameter is the mean."""
        is_mean = any(parameter.rule == "average" for step in self.steps for parameter in step.parameters)
        return self.merger.reads_weights or is_mean

    @property
    def draws_masks(self) -> bool:
        """Whether the method draws values at random."""
        return self.merger.draws_masks

    @property
    def all_have_scales(self) -> bool:
        """Whether no candidate is left to the scale of `[merge]`, which nothing else is done with."""
        return self.reads_scales and all(candidate.scale is not None for candidate in self.manifest.candidates)

    @property
    def all_have_densities(self) -> bool:
        """Whether no candidate is left to the density of `[merge]`."""
        return self.reads_densities and all(candidate.density is not None for candidate in self.manifest.candidates)

    @property
    def has_own_statistics(self) -> bool:
        """Whether statistics are those of the candidates' own forward passes."""
        return self.merger.streams == (Stream.OWN,)

    @property
    def method(self) -> str:
        return f'method "{self.manifest.merge.method}"'

    def lacks(self, part: str) -> bool:
        """Whether the model has no parameters of its own in a part outside the blocks."""
        names = [tensor.name for step in self.steps for tensor in step.parameters]
        return not any(self.architecture.part_of(name) == part for name in names)

    @property
    def samples_rows(self) -> bool:
        """Whether some set of rows is sampled rather than read whole."""
        sets: list[Calibration | None] = [c.evaluation for c in self.manifest.candidates]
        sets += [c.calibration for c in self.manifest.candidates if self.reads_rows_of(c)]
        return any(rows is not None and rows.rows is not None for rows in sets)


#: Returns why a key of a table has no effect, or None where it has one.
_Reason = Callable[[_Context], str | None]
_MERGE: dict[str, _Reason] = {
    "prior_model": lambda c: None if any(step.regressed for step in c.steps) else "no weight is regressed",
    "seed": lambda c: (
        None if c.samples_rows or c.draws_masks else "no rows are sampled: no set that is read has `rows`"
    ),
}
#: The same for the method's options.
_OPTIONS: dict[str, _Reason] = {
    "scale": lambda c: "every candidate has its own" if c.all_have_scales else None,
    "density": lambda c: "every candidate has its own" if c.all_have_densities else None,
    "teacher": lambda c: "the candidate is the teacher of itself" if c.has_own_statistics else None,
}
_OTHERS: dict[str, _Reason] = {
    "embeddings": lambda c: "the model has none outside its blocks" if c.lacks("embeddings") else None,
    "final_norm": lambda c: "the model has none" if c.lacks("final_norm") else None,
    "head": lambda c: "the model has none of its own" if c.lacks("head") else None,
    "towers": lambda c: "the model has none" if c.lacks("towers") else None,
    "vocabulary": lambda c: "the model reads images" if c.reads_images else None,
}
_RESOURCES: dict[str, _Reason] = {
    "device_memory": lambda c: "the device is the CPU, and host_memory bounds it" if c.device_type == "cpu" else None,
}
_CANDIDATE: dict[str, Callable[[_Context, Candidate], str | None]] = {
    "weight": lambda c, _: (
        "there is no other candidate"
        if len(c.manifest.candidates) == 1
        else (None if c.reads_weights else f"{c.method} has no weights")
    ),
    "scale": lambda c, _: None if c.reads_scales else f"{c.method} has no scale of each candidate",
    "density": lambda c, _: None if c.reads_densities else f"{c.method} has no density of each candidate",
    "calibration": lambda c, candidate: None if c.reads_rows_of(candidate) else f"{c.method} reads no rows",
}
#: The same for the keys of a calibration or evaluation table.
_ROWS: dict[str, Callable[[_Context, Calibration], str | None]] = {
    "field": lambda c, rows: "the file holds tensors" if _holds_tensors(rows) else _image_folder_reason(c, rows),
    "max_length": lambda c, _: "images are of one length" if c.reads_images else None,
    "label": lambda c, _: None if c.reads_images else "texts have no labels",
    "head": lambda c, _: None if c.reads_images else "a language model is evaluated by its loss",
    "classes": lambda c, _: None if c.reads_images else "a language model is evaluated by its loss",
}


def unused_settings(
    manifest: Manifest, architecture: Architecture, device_type: str, steps: Sequence[Step], names: Sequence[str]
) -> Iterator[str]:
    """Yield a line for each setting without effect; candidates for which it is the same share one.

    `names` are those of all parameters that the model has.
    """
    context = _Context(manifest=manifest, architecture=architecture, device_type=device_type, steps=steps)
    yield from _unused_in_table("[merge]", manifest.merge, _MERGE, context)
    yield from _unused_in_table("[merge]", manifest.merge.options, _OPTIONS, context)
    yield from _unused_options(manifest.merge)
    yield from _unused_in_table("[merge.others]", manifest.merge.others, _OTHERS, context)
    yield from unused_rules(manifest, architecture, steps, names)
    yield from _replaced(manifest, replaced_everywhere(manifest, architecture, steps))
    unused = [entry for candidate in manifest.candidates for entry in _unused_in_candidate(candidate, context)]
    for (key, reason), entries in groupby(sorted(unused), key=lambda entry: entry[:2]):
        labels = ", ".join(f'"{label}"' for _, _, label in entries)
        yield f"[[candidates]] {key} of {labels} has no effect: {reason}"
    yield from _negligible_weights(manifest, steps)
    is_zero_shot = any(c.evaluation is not None and c.evaluation.classes is not None for c in manifest.candidates)
    if manifest.evaluation.text_tower is not None and not is_zero_shot:
        yield "[evaluation] text_tower has no effect: no candidate's evaluation names classes"
    yield from _unused_in_table("[resources]", manifest.resources, _RESOURCES, context)


def _unused_in_table(title: str, table: BaseModel, reasons: dict[str, _Reason], context: _Context) -> Iterator[str]:
    for key, reason in reasons.items():
        if key in table.model_fields_set and (why := reason(context)):
            yield f"{title} {key} has no effect: {why}"


def _unused_options(merge: Merge) -> Iterator[str]:
    for key, why in make_method(merge.method, merge.options).unused_options().items():
        if key in merge.options.model_fields_set:
            yield f"[merge] {key} has no effect: {why}"


def _replaced(manifest: Manifest, replaced: Collection[Setting]) -> Iterator[str]:
    """Settings of tables in whose place every parameter has a rule's."""
    reason = "has no effect: rules give it to every parameter that it decides"
    for key in sorted(manifest.merge.options.model_fields_set):
        if Setting(key) in replaced:
            yield f"[merge] {key} {reason}"
    for candidate in manifest.candidates:
        for key in sorted(candidate.model_fields_set):
            if Setting(key, candidate.name) in replaced:
                yield f'[[candidates]] {key} of "{candidate.name}" {reason}'


def _unused_in_candidate(candidate: Candidate, context: _Context) -> Iterator[tuple[str, str, str]]:
    """Yield key, reason and the candidate's name."""
    for key, reason in _CANDIDATE.items():
        if key in candidate.model_fields_set and (why := reason(context, candidate)):
            yield key, why, candidate.name
    read = candidate.calibration if context.reads_rows_of(candidate) else None
    sets = {"calibration": read, "evaluation": candidate.evaluation}
    for table, rows in sets.items():
        for key, row_reason in _ROWS.items() if rows is not None else ():
            if rows is not None and key in rows.model_fields_set and (why := row_reason(context, rows)):
                yield f"{table}.{key}", why, candidate.name


def _holds_tensors(rows: Calibration) -> bool:
    return rows.path is not None and rows.path.suffix == ".safetensors"


def _image_folder_reason(context: _Context, rows: Calibration) -> str | None:
    return "a folder holds images" if context.reads_images and rows.path is not None and rows.path.is_dir() else None


def _negligible_weights(manifest: Manifest, steps: Sequence[Step]) -> Iterator[str]:
    shares = {p.shares for step in steps for p in step.parameters if p.rule not in ("base", "candidate")}
    for index, name in enumerate(manifest.candidate_names):
        if shares and all(own[index] == 0 for own in shares):
            yield f'candidate "{name}": its weight is 0 everywhere, which leaves it out of sums and means'
        elif shares and all(own[index] < NEGLIGIBLE * max(own) for own in shares):
            yield (
                f'candidate "{name}": weight {max(own[index] / max(own) for own in shares):.4g} of the largest is so'
                " small that the candidate has no effect on sums and means"
            )
