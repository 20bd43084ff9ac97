"""The known architectures, each a `Family`: where its blocks, stem and head are, and which linears share an input.

To add one, write a `Family` in one of these files and list it in `FAMILIES`. Nothing here imports torch.

family.py: what a description consists of, field by field
registry.py: all families, and the lookup by `model_type`
decoders.py, encoders.py, clip.py: the descriptions
"""
