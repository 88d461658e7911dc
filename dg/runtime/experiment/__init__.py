"""Experiments: a question, variants of a run, records, and the table that answers it."""
