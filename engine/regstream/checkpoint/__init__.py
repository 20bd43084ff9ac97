"""Checkpoints as the Hugging Face ecosystem writes them, read a few tensors at a time."""

from regstream.checkpoint.adapted import AdaptedCheckpoint
from regstream.checkpoint.adapter import Adapter, open_adapter
from regstream.checkpoint.checkpoint import ADAPTER_CONFIG, CONFIG, Checkpoint, open_checkpoint, read_config
from regstream.checkpoint.fingerprint import fingerprint
from regstream.checkpoint.header import FLOATS, TensorSpec, read_header
from regstream.checkpoint.mean import STRETCH, read_mean
from regstream.checkpoint.reader import TensorReader
from regstream.checkpoint.shared import SharedCheckpoint, Shelf
from regstream.checkpoint.source import LOCAL, Remote, Source

__all__ = [
    "ADAPTER_CONFIG",
    "CONFIG",
    "FLOATS",
    "LOCAL",
    "STRETCH",
    "AdaptedCheckpoint",
    "Adapter",
    "Checkpoint",
    "Remote",
    "SharedCheckpoint",
    "Shelf",
    "Source",
    "TensorReader",
    "TensorSpec",
    "fingerprint",
    "open_adapter",
    "open_checkpoint",
    "read_config",
    "read_header",
    "read_mean",
]
