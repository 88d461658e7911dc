"""Multiruns: where their records lie, what was varied in them, and what came out."""
