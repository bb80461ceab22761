"""What people are shown of runs and sweeps, as plain documents: for the dashboard, the report and the notebook alike.

A page is {kind, id, title, status, facts, sections}; a section is {id, title, blocks}; a block is one of

    {type: figure, key, spec}             a Plotly specification, see `raymeta.views.figures`
    {type: table, key, columns, rows}     cells are text, numbers, null, or {text, href}
    {type: note, tone, text}              tone is info or bad
    {type: code, label, text}             text to copy
    {type: episodes, items}               the episode viewer, worst first

All text in it is plain text: whoever draws a page escapes it.
"""
