"""One training problem in place of episodes.

`sources` read labelled images, `domains` tells kinds of them apart, `parts` cuts them, `noise` makes labels wrong,
`batches` draws, `problem` has the options and what is held, and `task_set` is all of it as tasks.
"""
