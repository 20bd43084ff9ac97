"""Rows of Alpaca's form, `instruction`, `input` and `output`, as the texts that Stanford's Alpaca was trained on."""

from collections.abc import Mapping

#: The field that stands for the whole row.
ALPACA = "alpaca"
ALPACA_COLUMNS = ("instruction", "input", "output")
#: What a row, or a whole file, may lack.
OPTIONAL_COLUMN = "input"
_WITHOUT_INPUT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:{output}"
)
_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. Write a"
    " response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:{output}"
)


def alpaca_text(values: Mapping[str, str]) -> str:
    """The prompt, with the input where the row has one, and the output right after it."""
    template = _WITH_INPUT if values.get(OPTIONAL_COLUMN) else _WITHOUT_INPUT
    return template.format_map(values)
