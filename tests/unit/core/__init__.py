"""Tests of `reconciler.core`: facts in, plans and texts out."""
