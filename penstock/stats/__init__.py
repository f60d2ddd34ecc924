"""Statistics: numbers in, numbers out. No files, no clocks, no models."""
