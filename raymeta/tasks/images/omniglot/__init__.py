"""Omniglot: the task set, the files that it comes in, Lake's twenty runs, and the command that gets it."""
