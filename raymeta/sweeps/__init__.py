"""Sweeps: many runs with other options each, side by side on Ray, and the best of them.

file/       what a sweep file says: what is searched, how, with which resources; all checked first
search/     which configuration comes next: a pure function of those before it
tune/       all that touches Ray Tune: trials, schedulers, the whole sweep
resources   what a trial takes of a cluster, and whether it can ever fit
records     one plain file a trial, enough to go on from after a kill
summary     the sweep's results as files: its trials, its best configuration
display     what people see while it goes on
"""
