"""The files behind a page: of a run, a sweep, and a measurement.

Any of them may be absent, torn, huge or gone the next moment. Nothing here raises for that.
"""
