"""The KFP face of each stage: a typed contract and one call."""
