"""Tests of `reconciler.host`, on temporary folders and on sockets of the test itself."""
