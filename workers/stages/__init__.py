"""The stages of the graph: a model and a pure part each.

`encoders` loads the models, `site_plan` turns a site's settings into rules, zones and heads.
May import: `workers/runtime`, `workers/config`, `workers/media`, and below.
"""
