"""Recipes of mergekit (mergekit.org's YAML), as manifests that do the same. Imports no torch.

read_recipe.py: YAML to a recipe, in whichever form its models are given
recipe.py: what a recipe says
layers.py: slices, and the layers that they take of each model
parameters.py: a parameter's values by precedence, filters and gradients
translate.py: the manifest of a recipe
averages.py: linear and passthrough
task_vectors.py: task_arithmetic, ties, dare_linear and dare_ties
other_methods.py: slerp and model_stock
tokenizers.py: what becomes of tokenizer, chat template and dtype
names.py: names of candidates
draft.py: the manifest's tables while the recipe is translated
manifest_text.py: their text
"""
