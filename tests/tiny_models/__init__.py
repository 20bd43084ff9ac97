"""Tiny models of many architectures of transformers, and what is known of each from reading its source.

model.py: what is said of a model; the sizes that all of them share
decoders.py: language models that attend, one linear after the other
recurrent.py: language models with convolutions, recurrences or state space layers
experts.py: language models with experts
encoders.py: text encoders
heads.py: models with a task's head, and models without the head that is usual for them
images.py: image encoders
multimodal.py: language models that also read images, and models of two towers
sequence_to_sequence.py: encoders with decoders, and speech encoders
registry.py: all of them by name
"""
