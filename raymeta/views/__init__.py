"""What people are shown of runs, sweeps and measurements.

`sources/` reads their files calmly, `figures/` draws, and `pages/` puts both together. The dashboard, the report and
`notebook` show the same pages.
"""
