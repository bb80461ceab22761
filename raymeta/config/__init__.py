"""What a run is told: layers of options from presets, files and the command line, checked against the schema.

`build` turns a configuration into the objects that train. Nothing below this room sees a configuration.
"""
