"""What a merge will do and what it takes, before it does it.

planning.py: from a manifest to a plan
compute_dtype.py: the dtype of weights and activations while merging
opened_merge.py: checkpoints, rows, model and steps of a merge, opened and validated
plan.py: an opened merge with its projections, budgets and disk needs
calibration_sets.py: the calibration sets, read, and tried on the model
architecture_summary.py: what was found in the model, and what becomes of it
step.py: one step, and what becomes of each parameter
make_steps.py: the steps in order, with their shards
parameter_settings.py: the numbers that each parameter is merged with
varying_settings.py: which of them are not the same everywhere, for people
library_memory.py: what libraries keep once they have multiplied
memory_terms.py: the memory model: what a step holds, term by term
statistics_memory.py: what statistics and solves of groups hold
disk_terms.py: what a step has on disk beside its shard
forward_memory.py: what a batch takes in the stem and in a block
rank_share.py: how ranks share the batches of a merge and the solves of a block
rank_costs.py: what a merge takes on each of several ranks, and its time beside that of one
network.py: what ranks send one another
reads.py: what a step reads of checkpoints, as often as it does
projection.py: a step's memory, reads and writes; the passes of its input groups
warmup.py: first calls of libraries, so that their memory is measured
work.py: what a step computes, in FLOP and in bytes
rates.py: how fast this machine is, and the time that follows
evaluation_estimate.py: about how long it will take to evaluate the result
budget.py: whether a plan fits into memory and onto the disks
downloads.py: shards of the hub: what each step reads, and the disk that they take
device.py: the device that a merge computes on
unchanged_inputs.py: proof that the files of a finished result's inputs have not changed
run_identity.py: everything that the bytes of a result depend on
unused_settings.py: warnings of settings without effect
unused_rules.py: of those, what rules give in vain or replace
discarded_changes.py: warnings of changed parameters that the result takes from another checkpoint
"""
