"""Reads the files that AMES and LOCORE publish with their local descriptors, without running
code."""
