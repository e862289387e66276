"""Inspection of the attention of a trained dynamic network."""
