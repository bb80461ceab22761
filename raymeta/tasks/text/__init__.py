"""Labelled texts as task sets, and how a text becomes tokens."""
