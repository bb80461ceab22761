"""What methods are made of: the problem, gradient descent on a task, its rules and losses, and the outcome.

A method in `raymeta.algorithms` puts these together. Nothing here knows a method or a run's configuration.
"""
