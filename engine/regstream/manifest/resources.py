"""The `[resources]` table of a manifest."""

from typing import Annotated, Literal

from pydantic import Field

from regstream.manifest.value_types import Device, Place, SizeBytes, Table

ComputeDtype = Literal["auto", "float32", "bfloat16", "float16"]


class Resources(Table):
    """What the run may use. Sizes are in bytes; None: what is free, less a margin.

    `workdir` is the folder in which a run makes one of its own; None: the output.
    """

    device: Annotated[Device | None, Field(examples=["cpu"])] = None
    """"cpu", "cuda" or "cuda:1"; the device that computes; default: cuda where there is one, else cpu"""
    compute_dtype: ComputeDtype = "auto"
    """the dtype of weights and activations while merging; "auto" is the files' own, or float32 where the device
    multiplies it faster"""
    device_memory: Annotated[SizeBytes | None, Field(examples=["8GiB"])] = None
    """a size, such as "8GiB"; budget on the device; default: what is free there, less a margin"""
    host_memory: Annotated[SizeBytes | None, Field(examples=["8GiB"])] = None
    """a size, such as "8GiB"; budget of the whole process; default: what is free, less a margin"""
    disk: Annotated[SizeBytes | None, Field(examples=["100GiB"])] = None
    """a size, such as "100GiB"; budget of result, activations and shards of the hub; default: what is free"""
    workdir: Annotated[Place | None, Field(examples=["work"])] = None
    """a folder; parent of the run's folder for activations and journal; default: the output"""
    diagnostics: bool = True
    """true or false; whether a run computes residuals and the kept share of each change, for `regstream report`; it
    reads every tensor of base and candidates once more; default: true"""
