"""Who hears of a run while it goes on: terminals, TensorBoard, Ray's metrics, Python's warnings.

`names` lists all metrics and events, and `base` says what a tracker is. A tracker that fails never ends a run.
"""
