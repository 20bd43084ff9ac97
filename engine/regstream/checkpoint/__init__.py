"""Checkpoints as the Hugging Face ecosystem writes them, read a few tensors at a time."""

from regstream.checkpoint.checkpoint import Checkpoint, open_checkpoint, read_config
from regstream.checkpoint.fingerprint import fingerprint
from regstream.checkpoint.header import TensorSpec, read_header
from regstream.checkpoint.mean import STRETCH, read_mean
from regstream.checkpoint.reader import TensorReader

__all__ = [
    "STRETCH",
    "Checkpoint",
    "TensorReader",
    "TensorSpec",
    "fingerprint",
    "open_checkpoint",
    "read_config",
    "read_header",
    "read_mean",
]
