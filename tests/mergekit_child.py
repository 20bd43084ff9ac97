"""Runs recipes with mergekit, in a process of its own: `python mergekit_child.py '[["recipe.yml", "output"], …]'`.

Prints a JSON object: by recipe what it was refused with, null where it ran. In place of mergekit's random masks are
those that regstream draws for the same parameter and candidate, with the seed 0.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from mergekit import sparsify
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.merge_methods.generalized_task_arithmetic import GeneralizedTaskArithmeticMerge
from mergekit.options import MergeOptions

from regstream.methods.random_masks import mask_key, random_mask

_merge_group: Any = GeneralizedTaskArithmeticMerge.merge_group
_keys: Iterator[bytes] = iter(())


def merge_group(self: Any, group: Any, /, **parameters: Any) -> Any:
    """As mergekit's, which drops values of one model after another."""
    global _keys  # noqa: PLW0603  # mergekit hands its own functions nothing but tensors
    names = [Path(str(entry.id)).name for entry in group.non_base]
    _keys = iter([mask_key(0, group.metadata.name, name) for name in names])
    return _merge_group(self, group, **parameters)


def bernoulli(tensor: Any, density: float, rescale_norm: Any = None) -> Any:
    """As mergekit's, with another mask."""
    key = next(_keys)
    if density >= 1:
        return tensor
    mask = random_mask(key, slice(0, tensor.numel()), density).view(tensor.shape)
    return sparsify.rescaled_masked_tensor(tensor, mask.to(tensor.dtype), rescale_norm)


def main() -> None:
    """Run each recipe."""
    GeneralizedTaskArithmeticMerge.merge_group = merge_group
    sparsify.bernoulli = bernoulli
    outcomes: dict[str, str | None] = {}
    for recipe, output in json.loads(sys.argv[1]):
        options = MergeOptions(lora_merge_cache="adapted", quiet=True, copy_tokenizer=False, write_model_card=False)
        try:
            configuration = MergeConfiguration.model_validate(yaml.safe_load(Path(recipe).read_text()))
            run_merge(configuration, output, options)
            outcomes[recipe] = None
        except Exception as error:
            outcomes[recipe] = f"{type(error).__name__}: {error}"
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main()
