"""Report: what people look at: progress lines, plots, one page per run."""
