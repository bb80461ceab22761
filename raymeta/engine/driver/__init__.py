"""The driver: the one loop that takes outer steps, and everything that it keeps.

It plans shards, folds their sums, steps the outer optimiser, validates, and writes checkpoints.
"""
