"""Runs as folders of plain files: written by one process, read by anyone.

Here they are locked, mirrored to a store and restored from it, sealed, listed, compared and exported.
"""
