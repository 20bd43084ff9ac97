"""A transformers model that runs one block at a time, and the descriptions of architectures.

architecture/: the description of an architecture, and what becomes of its parts by default
derivation/: an architecture derived from its model, which is run without weights and watched
overrides/: what the manifest's `[architecture]` table says instead
config/: configs as transformers reads them: loaded, bounded, compared
stored_buffers.py: buffers that checkpoints store as they store parameters
vocabulary.py: which parameters have a row for each token
parameter.py: one parameter under each of its names, with its shape
layered_model.py: runs the stem, one block, or the head of a model whose other parameters stay on the meta device
empty_model.py: builds a model without weights
block_wrappers.py: modules that replace blocks during a forward pass
known_masks.py: masks prepared without waiting for a device
chunked_activation.py: activation functions applied in place, chunk by chunk
linear_inputs.py: hooks on the inputs of a block's linears and norms
fused_tensors.py: experts' matrices in the memory of one parameter
expert_inputs.py: what reaches each expert of a block
normalised.py: what a norm makes of its input before weight and bias
batch.py: rows padded to one length, and their valid tokens
body_arguments.py: what blocks depend on beside hidden states, recorded and stored
described_model.py: a model without weights, by its description
row_costs.py: what a row of images takes in a pass beside its hidden states
resumed_block.py: a block taken up from inputs of its linears that an earlier pass observed
tensor_arguments.py: the tensors among the arguments of an operation
unknown.py: tensors of unknown values, so that a pass skips what does not depend on what is asked of it
rope_state.py: rotary embeddings that remember the longest row
row_mixing.py: models whose rows run one by one
"""
