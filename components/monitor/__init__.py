"""The KFP face of the monitor stage."""
