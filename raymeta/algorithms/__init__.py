"""Methods: `base` says what an algorithm is, and every other file is one method, named as in its paper.

What several methods share lies in `raymeta.adaptation`.
"""
