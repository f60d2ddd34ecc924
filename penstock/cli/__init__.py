"""The command line: one verb per stage, and run, up, down, status, ledger."""
