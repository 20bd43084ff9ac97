"""The main loop, and the phases of a step.

scheduler.py: the main loop: run each remaining step, commit it, publish at the end
plan_together.py: the plan of several ranks
claim.py: what a run claims before it writes
resume.py: where a run goes on, and whether all ranks see the same merge
commit.py: the commit of a step, once every rank is done with it
step.py: one step: stem, block or head
step_context.py: what the steps of a run share: stores, buffers, timing, listener
regress.py: a block's regression
block_pass.py: what the phases of a pass over a block share
reference.py: what candidates' weights are differences from: one of them, or the method's prior
group_inputs.py: inputs of linears on disk, from which later passes over a block take it up
opened_stream.py: a stream of one candidate through a block
collect.py: a candidate's calibration set through the block, observed at the inputs of linears
solve.py: an input group solved and written
load_ahead.py: weights on their way to an accelerator while it computes
result_copies.py: what a step wrote, on every rank
token_sketches.py: sketches of the inputs of a block's groups
diagnostics.py: what became of each candidate, once a step is written
parameter_change.py: the candidates' changes of one parameter, and what the result keeps of them
weight_sketches.py: sketches of one linear's weights, of all candidates
residuals.py: what the linears of an input group have lost of each candidate, by sketches
combine.py: what is not regressed: means, the base's own, a method's formula
tensor_source.py: one tensor of base and candidates, read for a method's formula
propagate.py: hidden states through the merged block, or each candidate's own
input_files.py: the input files, checked for changes before each commit
recovery.py: committed shards, checked before a run resumes
"""
