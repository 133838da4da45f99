"""Tests on a real machine: a throwaway Debian with systemd as PID 1, booted for each test."""
