"""Settings that a manifest gives and that change nothing, each with why: whoever wrote them expects an effect."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from pydantic import BaseModel

from regstream.manifest.rules import match_rule
from regstream.manifest.schema import Calibration, Candidate, Manifest
from regstream.manifest.shares import NEGLIGIBLE
from regstream.models.family import Family
from regstream.plan.step import Step

_SETS = ("calibration", "evaluation")


@dataclass(frozen=True, kw_only=True)
class _Facts:
    """What decides whether a setting is read."""

    manifest: Manifest
    family: Family
    device_type: str
    steps: Sequence[Step]

    @property
    def reads_images(self) -> bool:
        return self.family.rows == "pixel_values"

    @property
    def regresses(self) -> bool:
        return self.manifest.merge.regresses

    @property
    def method(self) -> str:
        return f'method "{self.manifest.merge.method}"'

    def lacks(self, part: str) -> bool:
        """Whether the model has no parameters of its own in a part outside the blocks."""
        names = [tensor.name for step in self.steps for tensor in step.tensors]
        return not any(self.family.part_of(name) == part for name in names)

    def draws(self) -> bool:
        """Whether rows are drawn, of some of a set's."""
        sets: list[Calibration | None] = [c.evaluation for c in self.manifest.candidates]
        sets += [c.calibration for c in self.manifest.candidates if self.regresses]
        return any(rows is not None and rows.rows is not None for rows in sets)


#: Of a table: a key, and what there is to say of it where it has no effect.
_Reason = Callable[[_Facts], str | None]
_MERGE: dict[str, _Reason] = {
    "alpha": lambda f: None if f.regresses else f"{f.method} solves no regression",
    "seed": lambda f: None if f.draws() else "no rows are drawn: no set that is read has `rows`",
}
_OTHERS: dict[str, _Reason] = {
    "embeddings": lambda f: "the model has none outside its blocks" if f.lacks("embeddings") else None,
    "final_norm": lambda f: "the model has none" if f.lacks("final_norm") else None,
    "head": lambda f: "the model has none of its own" if f.lacks("head") else None,
    "vocabulary": lambda f: "the model reads images" if f.reads_images else None,
}
_RESOURCES: dict[str, _Reason] = {
    "device_memory": lambda f: "the device is the CPU, and host_memory bounds it" if f.device_type == "cpu" else None,
}
_CANDIDATE: dict[str, _Reason] = {
    "weight": lambda f: "there is no other candidate" if len(f.manifest.candidates) == 1 else None,
    "calibration": lambda f: None if f.regresses else f"{f.method} reads no rows",
}
#: Of a set of rows, whose path counts too.
_ROWS: dict[str, Callable[[_Facts, Calibration], str | None]] = {
    "field": lambda f, rows: "the file holds tensors" if _holds_tensors(rows) else _of_folder(f, rows),
    "max_length": lambda f, _: "images are of one length" if f.reads_images else None,
    "label": lambda f, _: None if f.reads_images else "texts have no labels",
    "head": lambda f, _: None if f.reads_images else "a language model is judged by its loss",
    "classes": lambda f, _: None if f.reads_images else "a language model is judged by its loss",
}


def unused_settings(
    manifest: Manifest, family: Family, device_type: str, steps: Sequence[Step], names: Sequence[str]
) -> Iterator[str]:
    """A line for each setting that has no effect; of those of candidates, a line for all of them."""
    facts = _Facts(manifest=manifest, family=family, device_type=device_type, steps=steps)
    yield from _of_table("[merge]", manifest.merge, _MERGE, facts)
    yield from _of_table("[merge.others]", manifest.merge.others, _OTHERS, facts)
    yield from _rules(manifest, family, steps, names)
    found = [line for candidate in manifest.candidates for line in _of_candidate(candidate, facts)]
    for (key, reason), entries in groupby(sorted(found), key=lambda line: line[:2]):
        names = ", ".join(f'"{name}"' for _, _, name in entries)
        yield f"[[candidates]] {key} of {names} has no effect: {reason}"
    yield from _weights(manifest)
    worded = any(c.evaluation is not None and c.evaluation.classes is not None for c in manifest.candidates)
    if manifest.evaluation.text_tower is not None and not worded:
        yield "[evaluation] text_tower has no effect: no candidate's evaluation names classes"
    yield from _of_table("[resources]", manifest.resources, _RESOURCES, facts)


def _of_table(title: str, table: BaseModel, reasons: dict[str, _Reason], facts: _Facts) -> Iterator[str]:
    for key, reason in reasons.items():
        if key in table.model_fields_set and (why := reason(facts)):
            yield f"{title} {key} has no effect: {why}"


def _of_candidate(candidate: Candidate, facts: _Facts) -> Iterator[tuple[str, str, str]]:
    """Key, reason, and the candidate's name."""
    for key, reason in _CANDIDATE.items():
        if key in candidate.model_fields_set and (why := reason(facts)):
            yield key, why, candidate.name
    for name in _SETS if facts.regresses else _SETS[1:]:
        rows: Calibration | None = getattr(candidate, name)
        for key, of_rows in _ROWS.items() if rows is not None else ():
            if rows is not None and key in rows.model_fields_set and (why := of_rows(facts, rows)):
                yield f"{name}.{key}", why, candidate.name


def _holds_tensors(rows: Calibration) -> bool:
    return rows.path is not None and rows.path.suffix == ".safetensors"


def _of_folder(facts: _Facts, rows: Calibration) -> str | None:
    return "a folder holds images" if facts.reads_images and rows.path is not None and rows.path.is_dir() else None


def _weights(manifest: Manifest) -> Iterator[str]:
    largest = max(manifest.shares)
    for candidate, share in zip(manifest.candidates, manifest.shares, strict=True):
        if share < NEGLIGIBLE * largest:
            yield (
                f'candidate "{candidate.name}": weight {candidate.weight:g} is so small beside the largest,'
                f" {max(c.weight for c in manifest.candidates):g}, that the candidate has no effect on sums and means"
            )


def _rules(manifest: Manifest, family: Family, steps: Sequence[Step], names: Sequence[str]) -> Iterator[str]:
    blocks = {name: family.block_of(name) for name in names}
    num_blocks = 1 + max((block for block in blocks.values() if block is not None), default=0)
    regressed = {tensor.name for step in steps for tensor in step.tensors if tensor.use == "regress"}
    matched = {name: match_rule(manifest.rules, name, block, num_blocks) for name, block in blocks.items()}
    for index, rule in enumerate(manifest.rules):
        own = [name for name, first in matched.items() if first is rule]
        if rule.use == "regress" and not regressed.intersection(own):
            yield f'rules[{index}] {rule.parameters!r}: use = "regress" averages: it matches no weight of a linear'
