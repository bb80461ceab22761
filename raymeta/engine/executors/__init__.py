"""Who runs shards: this process (`local`), or Ray actors (`ray_actors/`). `base` is what both promise.

`placement` is the arithmetic of what workers ask of a cluster.
"""
