"""The fuzz targets (C), what they begin with, and the run of them all."""
