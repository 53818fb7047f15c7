"""Figures: one family of metrics a file."""
