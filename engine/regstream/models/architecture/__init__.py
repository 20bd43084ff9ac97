"""What the engine knows of an architecture: where its blocks, stem and head are, and which linears share an input.

architecture.py: the description, field by field
default_policy.py: what becomes of the parameters outside the blocks, as published for a model family
nested_models.py: models inside larger ones that are merged by themselves
"""
