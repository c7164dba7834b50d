"""Cameras for tests: real servers, programs, and raw sources that fail on command."""
