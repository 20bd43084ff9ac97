"""The model card, which the hub shows for a result."""

from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from regstream.manifest.keys import format_settings
from regstream.manifest.named_models import model_of
from regstream.manifest.redaction import redact_paths
from regstream.manifest.references import ModelRef
from regstream.manifest.schema import Candidate
from regstream.methods import AUTO
from regstream.methods.by_block import ByBlock
from regstream.models.architecture.architecture import Architecture
from regstream.output.card_sections import card_sections
from regstream.output.record_schema import ResultRecord
from regstream.planning.plan import Plan
from regstream.planning.varying_settings import settings_rows
from regstream.validation.summaries import summarize_names

_TEXT = """
# {name}

A merge of {num_candidates} fine-tuned checkpoints{base} with {method}, made by
[regstream](https://pypi.org/project/regstream/). `regstream.json` holds the digests of all inputs and the report of
every solve.

## Candidates

{candidates}
{prior}{settings}{parts}
{sections}

## Manifest

```toml
{manifest}
```
"""


def model_card(plan: Plan, record: ResultRecord | None = None) -> str:
    """The text of README.md, with metadata; `record` is that of the result, as far as it is known."""
    base = plan.manifest.merge.base
    data = ModelCardData(
        base_model=_base_models(plan),
        datasets=_datasets(plan),
        library_name="transformers",
        license=_license(plan),
        pipeline_tag=_pipeline_tag(plan.base.architecture),
        tags=["merge", "regstream", plan.method.name],
    )
    lines = [f"- **{c.name}**: {_describe(plan, c)}, {_factors(plan, c)}" for c in plan.manifest.candidates]
    text = _TEXT.format(
        name=plan.output.name,
        num_candidates=len(plan.candidates),
        base="" if base is None else f" of {_title(plan, base)}",
        method=_method(plan),
        candidates="\n".join(lines),
        prior=_prior(plan),
        settings=_settings(plan),
        parts=_parts(plan),
        sections=card_sections(record),
        manifest=redact_paths(plan.manifest.text).strip(),
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n{text}"))


def _prior(plan: Plan) -> str:
    """The checkpoint that the regression corrects, if there is one."""
    prior = plan.manifest.merge.prior_model
    return "" if prior is None else f"\n## Prior\n\nRegressed weights are corrections of {_title(plan, prior)}.\n"


def _settings(plan: Plan) -> str:
    """The settings that are not the same for all parameters, by step."""
    if not (varying := plan.varying_settings):
        return ""
    lines = ["| step |" + "".join(f" {setting.title} |" for setting in varying), "|---|" + "---|" * len(varying)]
    for names, cells in settings_rows(varying, plan.steps):
        lines.append(f"| {' to '.join(dict.fromkeys((names[0], names[-1])))} |" + "".join(f" {c} |" for c in cells))
    note = "A share is a weight over the mean of all weights; in parentheses, the number of parameters.\n\n"
    return f"\n## Settings by block\n\n{note}" + "\n".join(lines) + "\n"


def _parts(plan: Plan) -> str:
    """What is not the candidates' merge: parts of the model from one checkpoint, and tensors without a place in it."""
    sources: dict[str, list[str]] = {}
    for step in plan.steps:
        for tensor in step.parameters:
            if tensor.rule == "base":
                sources.setdefault("the base", []).append(tensor.recorded_name)
            elif tensor.candidate is not None:
                sources.setdefault(plan.candidates[tensor.candidate].name, []).append(tensor.recorded_name)
    lines = [f"- of {source} alone: {summarize_names(names)}" for source, names in sources.items()]
    lines += [f"- left out of {label}: {summarize_names(names)}" for label, names in plan.ignored.items()]
    return "\n## Tensors that are not merged\n\n" + "\n".join(lines) + "\n" if lines else ""


def _method(plan: Plan) -> str:
    """The method; with its settings where the manifest leaves them to be found."""
    settings = format_settings(plan.manifest.merge.options.model_dump())
    return plan.method.name + (f" ({settings}, as tuned)" if plan.manifest.merge.method == AUTO else "")


def _base_models(plan: Plan) -> list[str] | None:
    merge = plan.manifest.merge
    references = [r for r in (merge.base, merge.prior_model) if r is not None]
    references += [r for c in plan.manifest.candidates for r in (c.model, c.adapter) if r is not None]
    return list(dict.fromkeys(r.hub_id for r in references if r.hub_id is not None)) or None


def _datasets(plan: Plan) -> list[str] | None:
    rows = (candidate.calibration for candidate in plan.manifest.candidates if plan.manifest.merge.regresses)
    return list(dict.fromkeys(r.dataset for r in rows if r is not None and r.dataset is not None)) or None


def _describe(plan: Plan, candidate: Candidate) -> str:
    model = _title(plan, model_of(plan.manifest, candidate))
    return model if candidate.adapter is None else f"adapter {_title(plan, candidate.adapter)} on {model}"


def _factors(plan: Plan, candidate: Candidate) -> str:
    """What multiplies a candidate."""
    own = {key: getattr(candidate, key) for key in plan.method.own_options}
    given = "".join(f", {key} {_number(value)}" for key, value in own.items() if value is not None)
    return f"weight {_number(candidate.weight)}{given}"


def _number(setting: ByBlock) -> str:
    """A number, or a list over the blocks."""
    return f"[{', '.join(f'{value:g}' for value in setting)}]" if isinstance(setting, tuple) else f"{setting:g}"


def _title(plan: Plan, reference: ModelRef) -> str:
    commit = plan.commits.get(str(reference))
    return (reference.hub_id or reference.name) + (f" at {commit[:12]}" if commit else "")


def _license(plan: Plan) -> str | None:
    card = plan.base.folder / "README.md"
    if not card.is_file():
        return None
    try:
        text = card.read_text(encoding="utf-8", errors="replace")
        license_name: Any = ModelCard(text, ignore_metadata_errors=True).data.get("license")
    except Exception:  # the base's card may be malformed in any way, and this one needs no license
        return None
    return license_name if isinstance(license_name, str) else None


def _pipeline_tag(architecture: Architecture) -> str:
    if architecture.modality == "pixel_values":
        return "image-feature-extraction"
    if architecture.predicts_targets:
        return "text2text-generation" if architecture.reads_tokens else "automatic-speech-recognition"
    return "text-generation" if architecture.is_causal_lm else "feature-extraction"
