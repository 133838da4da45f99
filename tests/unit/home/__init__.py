"""Tests of `reconciler.home`, in temporary homes, with real git."""
