"""The description of an architecture, as it is derived from a model.

architecture.py: the description, field by field
fused_weight.py: a parameter that holds the matrices of many experts
default_policy.py: what becomes of the parameters outside the blocks unless the manifest says otherwise
nested_models.py: models inside larger ones that are merged by themselves
"""
