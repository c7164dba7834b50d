"""Privacy: masks of cameras, how long files are kept, the report, and anonymised copies (docs/privacy.md)."""
