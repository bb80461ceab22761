"""Layers with right derivatives, and the conversion of a person's model to them.

Parameter names stay what they were.
"""
