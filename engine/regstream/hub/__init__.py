"""The Hugging Face hub: repositories at a pinned commit, range requests, downloads within a disk budget, uploads.

errors.py: one-line errors of the hub's client. eviction.py: which shards stay on disk at which step.
fetch.py: downloads, verifies and evicts one file. prefetcher.py: has shards on disk when a step reads them.
repository.py: lists a repository and resolves revisions. upload.py: uploads files in one commit.
"""
