"""Using what was learned: a trained model on somebody's own few examples.

`pretrained` opens a run, a checkpoint or an exported folder; `adapted` is a model with a support set, which predicts.
`support` reads somebody's examples, `trust` says how far to believe the answers, `seen` what the training data looked
like. `folder` is the one format of both kinds of folders, `card` the page that goes with a model.
"""
