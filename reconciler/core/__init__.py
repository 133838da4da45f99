"""The pure core. No file, process, bus, clock, logging or randomness here.

Text and observations come in as values, plans and texts go out as values; the same
input gives the same output, byte for byte. Nothing here imports `reconciler.host`.
"""
