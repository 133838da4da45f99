"""What the benchmark runs in its machines: the other tools' programs, the floor, and what measures them."""
