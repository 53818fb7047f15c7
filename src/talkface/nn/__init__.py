"""Blocks and losses that two or more systems use."""
