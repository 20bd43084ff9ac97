"""Checkpoints in: tensors of safetensors files by parameter name, and LoRA adapters merged into them as they load.

adapted_checkpoint.py: a model with an adapter merged in. adapter.py: an adapter's file; adapter_config.py: its config.
auxiliary_names.py: which other files belong to a model. base_check.py: whether a base can be merged, by its config.
checkpoint.py: one checkpoint, its config and tensors. config_checks.py: what its config says of its files.
header.py: a safetensors header. joined_tensors.py: tensors that the model has apart.
loader.py: opens the checkpoints of a manifest. mean.py: the mean of a tensor over checkpoints.
own_names.py: the model's names of what files hold.
reader.py: reads tensors into buffers. row_map.py: rows of vocabulary in another order, and rows that a file lacks.
shared_checkpoint.py: caches the last read of a model under several adapters.
source.py: files of a folder or of the hub. tensor_index.py: which file has which tensor.
wrapper_names.py: removes what torch.compile, DataParallel and FSDP add to names.
"""
