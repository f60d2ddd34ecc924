"""The KFP face of the register stage."""
