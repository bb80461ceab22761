"""Networks, one a file, and what is found out about models that people bring.

`base` says what a model specification is. `layers/` holds the layers that networks are built from.
"""
