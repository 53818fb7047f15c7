"""Blocks, losses and discriminators that two or more networks use."""
