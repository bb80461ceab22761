"""The Ray executor: long-lived actors, one device each, that pull shards. The only engine room that knows Ray.

The driver owns the pool and every call carries all it needs, so a lost worker is replaced and its shards computed
elsewhere without any change to the result: `pool` holds the workers, `executor` gives them shards, `deadlines` decides
about late ones and knows no Ray, `sums` asks for sums of results on their node, where `folding` makes them, `cluster`
starts or joins Ray and says what fits.
"""

from raymeta.engine.executors.ray_actors.executor import RayExecutor

__all__ = ["RayExecutor"]
