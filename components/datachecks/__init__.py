"""The KFP face of the datachecks stage."""
