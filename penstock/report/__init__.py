"""Report: what people look at: plots and one page per run."""
