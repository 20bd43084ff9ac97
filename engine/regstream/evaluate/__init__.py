"""Evaluates models on held-out rows, block by block: one block of one model is in memory at a time.

evaluation.py: the table of all models' scores.
evaluated_model.py: the models: base, candidates, their mean, the result and others.
layerwise.py: one model's forward pass over all rows, a block at a time, and the metric at its end.
metrics.py: chooses the metric and opens its rows.
loss.py: a language model's loss on held-out text.
accuracy.py: a vision model's accuracy.
classification_head.py: class scores from image features.
zero_shot.py: classification heads made from class names by CLIP's text tower.
text_tower.py: opens CLIP's text tower and tokenizes prompts for it.
class_names.py: TOML files of class names and prompt templates.
mean_weights.py: the plain mean of the candidates, read as if it were a checkpoint.
representation_bias.py: distances between hidden states of merged models and candidates.
"""
