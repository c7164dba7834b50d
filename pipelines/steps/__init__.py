"""Steps: plain callables ``Result -> Result | None`` between decoding and the sinks."""
