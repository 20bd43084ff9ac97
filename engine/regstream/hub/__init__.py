"""The Hugging Face hub: repositories at one commit, range requests, downloads, uploads."""
