"""The KFP face of the export stage."""
