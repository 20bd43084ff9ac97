"""How often a formula reads a tensor. Loading this file imports no torch."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TensorReads:
    """How many times all values of one tensor are read: of the base, of each candidate, and of the prior model."""

    base: int = 0
    candidates: int = 0
    prior_model: int = 0
