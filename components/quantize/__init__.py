"""The KFP face of the quantize stage."""
