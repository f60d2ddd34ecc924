"""The same model behind other servers; each runs in an environment of its own."""
