"""The stages of the graph; each has a model and a pure part.

`encoders` loads the models, `site_plan` builds rules, zones and heads from a site's settings.
May import: `workers/runtime`, `workers/config`, `workers/media`, and below.
"""
