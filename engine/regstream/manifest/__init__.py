"""The manifest: what a person asks for, read from TOML, checked as a whole, and turned into frozen objects.

Imports neither torch nor transformers, and opens no checkpoint: what needs parameter names is offered in `rules` to
whoever has them.
"""

from regstream.manifest.blocks import Blocks, parse_blocks, select_blocks
from regstream.manifest.fields import parse_device
from regstream.manifest.meaning import meaning
from regstream.manifest.reading import read_manifest
from regstream.manifest.references import ModelRef
from regstream.manifest.rules import match_rule, nearest_names, rule_problems, unmatched
from regstream.manifest.schema import Architecture, Calibration, Candidate, Manifest, Merge, Others, Resources, Rule

__all__ = [
    "Architecture",
    "Blocks",
    "Calibration",
    "Candidate",
    "Manifest",
    "Merge",
    "ModelRef",
    "Others",
    "Resources",
    "Rule",
    "match_rule",
    "meaning",
    "nearest_names",
    "parse_blocks",
    "parse_device",
    "read_manifest",
    "rule_problems",
    "select_blocks",
    "unmatched",
]
