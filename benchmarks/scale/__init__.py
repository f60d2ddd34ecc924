"""What one controller, one log and one ledger can take, by simulation."""
