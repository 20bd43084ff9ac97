"""The Hugging Face hub: what its repositories hold, and files of theirs in the cache for as long as they are needed."""

from regstream.hub.depot import Depot
from regstream.hub.failures import CLIENT_ERRORS, HubError, told
from regstream.hub.fetch import check, is_cached, read_start
from regstream.hub.repository import (
    HubFile,
    Repository,
    cache_folder,
    keep_to,
    moved_to,
    open_repository,
    remember,
    resolve,
)
from regstream.hub.send import LocalFile, Sent, send
from regstream.hub.stock import Stage, Stock

__all__ = [
    "CLIENT_ERRORS",
    "Depot",
    "HubError",
    "HubFile",
    "LocalFile",
    "Repository",
    "Sent",
    "Stage",
    "Stock",
    "cache_folder",
    "check",
    "is_cached",
    "keep_to",
    "moved_to",
    "open_repository",
    "read_start",
    "remember",
    "resolve",
    "send",
    "told",
]
