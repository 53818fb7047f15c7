"""Trainings, one a file, named <system>_<part>."""
