"""Task sets: pure functions from a task's key to its episode.

`base` says what a task set is, and `episodes` holds all algebra on episodes. `border` checks what comes in, and
`manifest` is what a run remembers of its data.
"""
