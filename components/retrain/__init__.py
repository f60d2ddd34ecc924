"""The KFP face of the retrain stage."""
