"""The presets: complete configurations that come with raymeta, one YAML file each.

`files` finds them and imports nothing heavy. `__main__` lists and prints them.
"""
