"""The model card: what the hub shows of a result."""

from collections.abc import Iterator
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from regstream.manifest.redaction import redact_paths
from regstream.manifest.references import ModelRef
from regstream.manifest.schema import Candidate
from regstream.models.family import Family
from regstream.plan.plan import Plan

_TEXT = """
# {name}

A merge of {num_candidates} fine-tuned checkpoints of {base} with {method}, made by
[regstream](https://pypi.org/project/regstream/). `regstream.json` holds the digests of all inputs and the report of
every solve.

## Candidates

{candidates}
{results}
## Manifest

```toml
{manifest}
```
"""


def model_card(plan: Plan, *, results: str | None) -> str:
    """The card's text, metadata included; `results` is a table in Markdown."""
    data = ModelCardData(
        base_model=_base_models(plan),
        datasets=_datasets(plan),
        library_name="transformers",
        license=_license(plan),
        pipeline_tag=_pipeline(plan.base.family),
        tags=["merge", "regstream", plan.method.name],
    )
    lines = [f"- **{c.name}**: {_made_of(plan, c)}, weight {c.weight:g}" for c in plan.manifest.candidates]
    text = _TEXT.format(
        name=plan.output.name,
        num_candidates=len(plan.candidates),
        base=_told(plan, plan.manifest.merge.base),
        method=plan.method.name,
        candidates="\n".join(lines),
        results=f"\n## Results\n\n{results}\n" if results else "",
        manifest=redact_paths(plan.manifest_text).strip(),
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n{text}"))


def _base_models(plan: Plan) -> list[str] | None:
    """The hub's own names of what the result was made of; a folder of somebody's machine is none."""
    return list(dict.fromkeys(r.hub_id for r in _references(plan) if r.hub_id is not None)) or None


def _references(plan: Plan) -> Iterator[ModelRef]:
    yield plan.manifest.merge.base
    for candidate in plan.manifest.candidates:
        yield from filter(None, (candidate.model, candidate.adapter))


def _datasets(plan: Plan) -> list[str] | None:
    """The data sets of the hub whose rows went into the statistics."""
    rows = (candidate.calibration for candidate in plan.manifest.candidates if plan.manifest.merge.regresses)
    return list(dict.fromkeys(r.dataset for r in rows if r is not None and r.dataset is not None)) or None


def _made_of(plan: Plan, candidate: Candidate) -> str:
    model = _told(plan, candidate.model or plan.manifest.merge.base)
    return model if candidate.adapter is None else f"adapter {_told(plan, candidate.adapter)} on {model}"


def _told(plan: Plan, reference: ModelRef) -> str:
    commit = plan.commits.get(str(reference))
    return _name(reference) + (f" at {commit[:12]}" if commit else "")


def _name(reference: ModelRef) -> str:
    return reference.hub_id or reference.name


def _license(plan: Plan) -> str | None:
    card = plan.base.folder / "README.md"
    if not card.is_file():
        return None
    try:
        text = card.read_text(encoding="utf-8", errors="replace")
        license_name: Any = ModelCard(text, ignore_metadata_errors=True).data.get("license")
    except Exception:  # whatever is wrong with another's card, this result is whole without it
        return None
    return license_name if isinstance(license_name, str) else None


def _pipeline(family: Family) -> str:
    """What the hub calls the use of such a model."""
    if family.rows == "pixel_values":
        return "image-feature-extraction"
    return "text-generation" if family.continues_text else "feature-extraction"
