"""Using what was learned: a trained model on somebody's own examples.

`opening` finds a run, a checkpoint or an exported folder, and `pretrained` is the model in it. What predicts is in
`answers`: `adapted` is a model with a support set, `trained` one that knows its classes from training.
`support` reads somebody's examples, `trust` says how far to believe the answers, `seen` what the training data looked
like. `folder` is the one format of both kinds of folders, `card` the page that goes with a model.
"""
