"""Finds a method's settings by small merges over fewer rows, which are scored on held-out rows.

tuner.py: the main loop: runs each remaining round and commits it.
tuning_plan.py: a tuning with its rounds, costs and identity.
held_out_split.py: which rows score the settings, and which calibrate them.
shared_rows.py: held-out rows that also calibrate.
schedule.py: the rounds: how many settings with how many rows.
disk.py: whether the results of a round fit on disk.
turns.py: the merges of a round, step by step in turns.
turns_progress.py: their events as those of one run.
scores.py: scores the results of a round in one evaluation.
journal.py: what finished rounds found.
tuning.py: what a tuning found.
tuning_status.py: how far an unfinished one is.
tuning_warnings.py: what a person should know before its scores are trusted.
auto.py: the settings of a merge whose method is "auto".
settings.py: the settings that a tuning tries.
"""
