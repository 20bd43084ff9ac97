"""What a person should know of a tuning before its scores are trusted."""

from collections.abc import Iterator

from regstream.tuning.tuning_plan import TuningPlan

#: With fewer rows, the difference between two settings is often that of the rows.
FEW_SCORED = 16


def tuning_warnings(plan: TuningPlan) -> Iterator[str]:
    """Yield a line for each of: few held-out rows, held-out rows that calibrate, scales that are not tuned."""
    few = {name: count for name, count in plan.num_held_out.items() if count < FEW_SCORED}
    if few:
        yield (
            f"tuning scores settings on few held-out rows ({_counts(few)}); with fewer than {FEW_SCORED} a candidate,"
            " chance may rank them: give it more calibration rows, or more rows in [candidates.evaluation]"
        )
    for name, count in plan.num_shared.items():
        yield (
            f'candidate "{name}": {count} of {plan.num_held_out[name]} held-out rows are also calibration rows, so that'
            " scores favor settings that fit them; remove them from one of the two"
        )
    if own := plan.own_scales:
        yield (
            f"the own scale of {', '.join(own)} is not tuned and stays; tuned is the scale in [merge], of the other"
            " candidates; to tune it for all, remove their own"
        )


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())
