"""Which configuration comes next. A proposer is a pure function of what was tried before.

So a sweep that was killed goes on from its records alone.
"""
