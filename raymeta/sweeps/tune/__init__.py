"""All that touches Ray Tune: its trials, schedulers, searcher, callback, and the driver of a whole sweep."""
