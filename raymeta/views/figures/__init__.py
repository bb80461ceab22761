"""Figures of runs and sweeps, as plain Plotly specifications: {data: [...], layout: {...}}.

A figure is made of plain rows, so that this room needs neither plotly nor a run. The notebook turns a specification
into a `plotly.graph_objects.Figure`; report and dashboard hand it to plotly.js as it is. `layout.meta` holds
{title, about}: what a reader, or a screen reader, is told about the picture.
"""
