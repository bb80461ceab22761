"""Sweeps: many runs with other options each, side by side on Ray, and the best of them.

schema, space, parse, load   the sweep file: what is searched, how, and with which resources; all checked first
search, evolution            which configuration comes next: a pure function of those before it
schedulers                   which trials stop early or change their options
resources                    what a trial takes of a cluster, and whether it can ever fit
trial                        one trial: an ordinary run that reports to Ray Tune
records, summary             plain files of a sweep: its trials, its best configuration
tuner                        all of it on Ray, from a new sweep or from the records of one that was killed
"""
