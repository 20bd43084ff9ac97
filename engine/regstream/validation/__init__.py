"""Checks, before any work, that base and candidates belong together.

check_inputs.py: all checks of a merge's inputs, in order, and the model that they agree on.
merge_rules.py: what becomes of each parameter, and so which checkpoints it is read from.
compatibility.py: refuses tensors, shapes, vocabularies and adapters that do not fit the base.
buffers.py: buffers that checkpoints store, named or left to the model.
class_labels.py: classifiers whose candidates number their classes differently.
configs.py: whether two config.json files describe models that compute the same.
unexpected_tensors.py: tensors that are no parameters of the model, ignored with a reason or refused.
ties.py: heads tied to the embeddings, compared and untied.
duplicates.py: candidates whose weights equal the base's or each other's.
adapter_effect.py: adapters that change less than their config says.
token_ids.py: ids of special tokens in a config, for another tokenizer.
auxiliary_files.py: the base's files beside its weights that go into the result.
summaries.py: long lists of tensor names, and repeated warnings, in few words.
"""
