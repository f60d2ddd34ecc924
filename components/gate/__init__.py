"""The KFP face of the gate stage."""
