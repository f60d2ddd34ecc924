"""The KFP face of the features stage."""
