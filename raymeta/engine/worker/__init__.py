"""One process with one device that computes shards. It keeps no outer state and knows no Ray.

A result is a pure function of job, parameters and shard, so that any worker may compute any shard again.
"""
