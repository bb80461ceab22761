"""What a sweep file says, from YAML to a checked sweep.

Every mistake is told with its line, before Ray starts.
"""
