"""The sections of a model card that follow from the record, and their replacement in a card that has them."""

from typing import Any

from merge_records import record
from regstream.output.card_sections import card_sections, replace_sections
from regstream.output.record_schema import ResultRecord

EVALUATION = {
    "metric": "held-out loss",
    "higher_is_better": False,
    "datasets": ["math", "code"],
    "rows": [
        {"model": "base", "scores": {"math": 2.0, "code": 1.0}},
        {"model": "math", "scores": {"math": 1.5}},
    ],
}
FILE = {"bytes": 1, "sha256": ""}


def fields(**entries: Any) -> ResultRecord:
    return ResultRecord.model_validate(record(**entries))


def test_the_table_of_scores_has_averages_of_whole_rows() -> None:
    text = card_sections(fields(evaluation=EVALUATION))
    assert "## Results" in text
    assert "| held-out loss | math | code | average |\n|---|---|---|---|\n" in text
    assert "| base | 2.000 | 1.000 | 1.500 |\n| math | 1.500 |  |  |\n" in text


def test_what_was_kept_is_a_row_for_each_candidate_and_the_worst_group() -> None:
    [text] = card_sections(fields(num_blocks=1)).split("## What the merge kept")[1:]
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows[0] == "| candidate | change | kept | residual | of the mean |"
    # Each change is 1 beside a base of 10, a half of it kept; residuals are 0.1 to 0.103 from group to group.
    assert rows[2] == "| math | 10 % | 50 % | 10.2 % | 15.2 % |"
    assert [row.split(" | ")[0] for row in rows[2:]] == ["| math", "| code", "| chat"]
    assert "The largest residual: block 0, mlp.down_proj: the merged weights miss what chat computes by 12.3 %" in text


def test_without_residuals_there_are_no_columns_of_them() -> None:
    steps = [{**step, "residuals": []} for step in record()["steps"]]
    text = card_sections(fields(steps=steps))
    assert "| candidate | change | kept |\n" in text
    assert "esidual" not in text


def test_a_record_without_numbers_leaves_places_that_are_filled_later() -> None:
    empty = fields(steps=[])
    assert "#" not in card_sections(empty)
    assert card_sections(empty) == card_sections()
    card = f"# Card\n\n{card_sections(empty)}\n\n## Manifest\n"
    filled = replace_sections(card, fields(evaluation=EVALUATION, files={"report/by-depth.png": FILE}))
    assert filled.index("## Results") < filled.index("## What the merge kept") < filled.index("![By depth](report/by-d")
    assert filled.startswith("# Card\n\n<!-- regstream results -->\n\n## Results")
    assert filled.endswith("<!-- end regstream pictures -->\n\n## Manifest\n")
    assert replace_sections(filled, empty) == card


def test_only_the_pictures_of_the_report_are_shown() -> None:
    files = dict.fromkeys(["report/b.png", "report/a.png", "report/c.svg", "logo.png", "report.html"], FILE)
    text = card_sections(fields(steps=[], files=files))
    assert "## Pictures\n\n![A](report/a.png)\n\n![B](report/b.png)\n\n<!-- end" in text
    assert "logo" not in text


def test_a_card_may_quote_a_section_after_its_own() -> None:
    quoted = f"\n```toml\n# {card_sections()}\n```\n"
    card = card_sections() + quoted
    filled = replace_sections(card, fields(evaluation=EVALUATION))
    assert filled.endswith(quoted)
    assert filled.count("## Results") == 1


def test_a_card_without_places_gets_the_sections_at_its_end() -> None:
    filled = replace_sections("# Card\n", fields(steps=[], evaluation=EVALUATION))
    assert filled.startswith("# Card\n\n<!-- regstream results -->\n\n## Results")
    assert replace_sections(filled, fields(steps=[], evaluation=EVALUATION)) == filled
