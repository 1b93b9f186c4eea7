"""The files that AMES and LOCORE publish beside local descriptors, read without running them."""
