"""Configs as transformers reads them.

config_file.py, nested.py: the JSON of a model's config.json, or a table within it
build.py: the config object; limits.py and remote_code.py refuse what is implausible or runs code
difference.py: where two configs differ; keys_read.py and same_model.py decide whether a difference matters
model_sizes.py, image_sizes.py: sizes in a config
"""
