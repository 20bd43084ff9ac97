"""Configs as transformers reads them.

config_file.py, nested.py: the JSON of a model's config.json, or a table within it
build.py: the config object; limits.py and remote_code.py refuse what is implausible or runs code
model_sizes.py, image_sizes.py: sizes in a config
"""
