"""The doors for Python: train, evaluate, resume, load, gradient. Every command calls one of them.

This room puts configuration, engine and files together, and prints nothing.
"""
