"""Attacks, one file per kind of input. Their payloads touch a marker file and nothing else."""
