"""What runs in a serving pod: predictor, hardening, prediction log, rehearsed faults."""
