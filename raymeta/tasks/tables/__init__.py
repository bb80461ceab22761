"""Rows of a table as task sets, and how a row becomes an input."""
