"""The editor of lines and zones on the page: what a browser may ask and change. Start from ``routes.py``."""
