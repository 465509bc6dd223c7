"""What the benchmark of the board is made of."""
