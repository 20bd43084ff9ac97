"""The main loop and the phases of a step."""
