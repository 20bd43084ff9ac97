"""The manifest: a TOML file that describes a merge, validated into frozen objects. Imports no torch.

schema.py: every key, its type, range and default
architecture.py: the [architecture] table
rule_table.py: the [[rules]] tables
resources.py: the [resources] table
non_block_parameters.py: the [merge.others] table
tokenizer_keys.py: the keys that choose a tokenizer and a chat template
method_options.py: the options of methods, as keys of [merge] and of [[rules]]
keys.py: what each key is, for messages, templates and documents
value_types.py: the types of values that are more than text and numbers
read_manifest.py: reads and validates a file, and reports every problem at once
overrides.py: settings given beside the file
from_tables.py: the same for tables in Python
messages.py: problems as one-line messages
draft.py: a manifest with invalid values left out
consistency.py, base_and_candidates.py: problems between keys
paths.py: problems with files and folders
other_formats.py: recognizes files in YAML, JSON or mergekit's format
class_lists.py: class names and templates, in files or by a dataset's name
named_models.py: the models that are meant where a key is left out
references.py: paths, and models in a folder or on the Hugging Face hub
blocks.py: block selectors such as "0,4-7" or "late"
rules.py: the rule that applies to a parameter and gives a setting, and rules without effect
shares.py: candidate weights, normalized to a mean of 1
bounded_regex.py: regular expressions with a time limit
canonical.py: the settings that determine the result
redaction.py: removes local paths and secrets from text
template.py: the text of a first manifest
write_settings.py: writes settings into a manifest that stays as it is otherwise
"""
