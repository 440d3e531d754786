"""Draws the figures of the docs as SVG: `architecture.every` names them all."""
