"""The KFP face of the train stage."""
