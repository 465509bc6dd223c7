"""What benchmarks/edge.py is made of: a PLC that plays recorded messages, and those who listen to it."""
