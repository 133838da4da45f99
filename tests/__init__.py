"""Tests: `unit` on the pure parts, `machine` on a real one, and programs that show and measure the whole."""
