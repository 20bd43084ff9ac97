"""The model card: what the hub shows of a result."""

from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from regstream.families import Family
from regstream.manifest import ModelRef
from regstream.plan import Plan

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
        base_model=[_name(plan.manifest.merge.base), *(_name(c.model) for c in plan.manifest.candidates if c.model)],
        library_name="transformers",
        license=_license(plan),
        pipeline_tag=_pipeline(plan.base.family),
        tags=["merge", "regstream", plan.method.name],
    )
    lines = [f"- **{c.name}**: {_name(c.model)}, weight {c.weight:g}" for c in plan.manifest.candidates if c.model]
    text = _TEXT.format(
        name=plan.output.name,
        num_candidates=len(plan.candidates),
        base=_name(plan.manifest.merge.base),
        method=plan.method.name,
        candidates="\n".join(lines),
        results=f"\n## Results\n\n{results}\n" if results else "",
        manifest=plan.manifest_text.strip(),
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n{text}"))


def _name(reference: ModelRef) -> str:
    return reference.hub_id or (reference.folder.name if reference.folder else "")


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
