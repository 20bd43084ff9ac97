"""What is asked: the manifest, read from TOML, validated, and turned into frozen objects. Imports no torch."""
