"""What a merge will do and what it takes: ordered steps, memory, disk, downloads."""
