"""Measurements: what the engine takes, beside what it projected and beside a plain implementation."""
