"""Examples of any kind in groups, each a class or a task: which group is in which split, and how episodes are drawn."""
