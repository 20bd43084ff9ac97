"""The manifest: what a person asks for, read from TOML, checked as a whole, and turned into frozen objects.

Imports neither torch nor transformers, and opens no checkpoint: what needs parameter names is offered in `rules` to
whoever has them.
"""

from regstream.manifest.architecture import Architecture
from regstream.manifest.blocks import Blocks, parse_blocks, select_blocks
from regstream.manifest.fields import parse_device
from regstream.manifest.meaning import meaning
from regstream.manifest.outline import Outlined, is_ready, outline
from regstream.manifest.reading import manifest_from, read_manifest, read_text
from regstream.manifest.record import for_the_record
from regstream.manifest.references import ModelRef, as_seen_from
from regstream.manifest.rules import match_rule, nearest_names, rule_problems, unmatched
from regstream.manifest.schema import (
    STATE,
    Calibration,
    Candidate,
    Manifest,
    Merge,
    Others,
    Resources,
    Rule,
)

__all__ = [
    "STATE",
    "Architecture",
    "Blocks",
    "Calibration",
    "Candidate",
    "Manifest",
    "Merge",
    "ModelRef",
    "Others",
    "Outlined",
    "Resources",
    "Rule",
    "as_seen_from",
    "for_the_record",
    "is_ready",
    "manifest_from",
    "match_rule",
    "meaning",
    "nearest_names",
    "outline",
    "parse_blocks",
    "parse_device",
    "read_manifest",
    "read_text",
    "rule_problems",
    "select_blocks",
    "unmatched",
]
