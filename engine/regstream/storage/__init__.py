"""Files that a run writes and that survive a kill, and checks on files before they are opened.

argument_store.py: what blocks are called with beside hidden states.
background_io.py: read-ahead and write-behind in a thread. digests.py: SHA-256 of files, prefixes and samples.
durable.py: atomic writes, appends and removals, fsynced. evaluation_folder.py: the folder of an evaluation's state.
file_scan.py: a file's digest, and its tensors that are not finite, from one read. file_status.py: what tells a change.
hidden_states.py: layer activations in a zarr store.
identity_differences.py: compares two run identities; identity_remedies.py: how to undo what differs.
journal.py: committed steps; journal_lines.py: its line format.
json_file.py: reads one JSON object. lfs_pointer.py: recognises git-lfs pointers. locking.py: one process at a time.
scratch_tensors.py: tensors that only the step which writes them reads.
regular_file.py: refuses pipes, devices and links.
leftovers.py: what is said of files that stay
run_folder.py: the folder of a run's state; tuning_folder.py: a tuning's.
shards.py: safetensors shards of the result, written step by step.
"""
