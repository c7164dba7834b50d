"""Recordings: frames, their times and what was found in them, kept so that a run can be repeated."""
