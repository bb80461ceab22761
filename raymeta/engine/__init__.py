"""The outer loop and those who compute for it.

`job` is what is asked of a worker, and its answer; `fold` adds answers in a fixed order. `worker/` computes a shard,
`executors/` bring shards to workers, and `driver/` takes the outer steps.
"""
