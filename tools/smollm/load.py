"""Loads a checkpoint whole, as ordinary code does: what a streamed merge's memory is compared with."""

import sys
from pathlib import Path

from transformers import AutoModelForCausalLM


def main() -> None:
    """Load the folder that is named on the command line and count what came."""
    model = AutoModelForCausalLM.from_pretrained(Path(sys.argv[1]), dtype="auto", local_files_only=True)
    print(f"{sum(parameter.double().sum().isfinite() for parameter in model.parameters())} parameters loaded")


if __name__ == "__main__":
    main()
