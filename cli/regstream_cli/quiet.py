"""Keeps the chatter of libraries off stderr, where only what regstream has to say belongs."""

import os
import sys
import warnings

_VARIABLES = {
    "DATASETS_VERBOSITY": "error",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "true",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}


def quieten() -> None:
    """Ask libraries to report errors only; to be called before they are imported. What a person has set stays."""
    for name, value in _VARIABLES.items():
        os.environ.setdefault(name, value)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
