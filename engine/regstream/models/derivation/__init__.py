"""An architecture, derived from the config alone: a model without weights is run and watched.

derive.py: from a config to an `Architecture`
model_class.py: the transformers class of a config
model_inputs.py: a few rows to run a model on
stand_ins.py: small parameters and products in place of real ones
trace.py: what a pass does, in the order in which it happens
block_list.py: which list of modules holds the blocks
input_groups.py: which linears of a block read the same tensor, and what is no linear
experts.py: which parameters of a block hold the matrices of experts
expert_modules.py: which modules of a block are experts
norms.py: which modules of a block are norms
parts.py: stem, final norm, head and towers, by the order of execution
whole_passes.py: passes of the whole model, with which single blocks are compared
block_call.py: how a block runs alone, verified against the whole model
verify.py: what a description says, held against the model
verify_row.py: the same for a row of text and images
keys_read.py: which keys of its config a model reads
parameter_names.py: names in files, by transformers' own renaming
"""
