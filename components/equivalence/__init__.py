"""The KFP face of the equivalence stage."""
