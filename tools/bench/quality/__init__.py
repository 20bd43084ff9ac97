"""How good methods of merging are: a list of settings, on families of candidates that scripts make.

settings.py: the settings; add one by a line. sweep.py: what is run, as a sweep of tools/experiments. report.py: the
table and the picture of a family. make: makes the families. run: runs the settings on them.
"""
