"""The KFP face of the engine stage."""
