"""Derivatives of a model as a pure function of its parameters.

They are taken, computed again in little memory, and explained where torch cannot take them. What a forward draws
or writes besides its outputs is put back.
"""
