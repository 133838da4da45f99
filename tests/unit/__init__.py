"""Tests that need nothing but Python: no machine, no bus, no root, and no process unless a test asks for one."""
