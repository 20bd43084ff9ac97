"""Evaluates models on held-out rows, block by block, all together: one block of one model is in memory at a time.

evaluation.py: the table of all models' scores.
representation_bias.py: distances between hidden states of merged models and candidates.
scheduler.py: the main loop: runs each remaining step and commits it.
evaluation_plan.py: an evaluation with its projections, budgets and identity.
rank_share.py: the rows of a rank, its folder, and what it checks with others before it begins.
sums.py: totals and counts of what is measured, added up over ranks.
step.py: one step: stem, a block or head of every model.
layerwise_pass.py: what runs together: models of one architecture, their rows, a metric or an observer.
layerwise_forward.py: runs a step, from hidden states to hidden states or scores.
part_weights.py: the weights of a step's part, each model's read once.
mean_weights.py: the plain mean of the candidates, read by itself or summed while they are read.
projection.py: how a step goes through the models within a budget.
estimate.py: the time of a step.
memory_terms.py: what a step holds, term by term.
journal.py: committed steps and what they found.
input_files.py: the models' files, checked for changes before each commit.
complete_models.py: leaves out models that lack what an evaluation runs.
evaluated_model.py: the models: base, candidates, their mean, the result and others.
metrics.py: chooses the metric and opens its rows.
loss.py: a language model's loss on held-out text.
accuracy.py: a vision model's accuracy.
classification_head.py: class scores from image features.
zero_shot.py: classification heads made from class names by CLIP's text tower.
text_tower.py: opens CLIP's text tower and tokenizes prompts for it.
class_names.py: TOML files of class names and prompt templates.
"""
