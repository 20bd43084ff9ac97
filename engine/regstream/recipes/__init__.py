"""Recipes of mergekit (mergekit.org's YAML), as manifests that do the same. Imports no torch.

read_recipe.py: YAML to a recipe, in whichever form its models are given
recipe.py: what a recipe says
layers.py: models in slices
parameters.py: a parameter's values by precedence, filters and gradients
translate.py: the manifest of a recipe
averages.py, task_vectors.py, other_methods.py: what becomes of each method
tokenizers.py: what becomes of tokenizer, chat template and dtype
names.py: names of candidates
draft.py: a manifest under way
manifest_text.py: its text
"""
