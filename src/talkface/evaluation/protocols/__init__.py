"""Protocols: what is generated, beside what it is scored, and how."""
