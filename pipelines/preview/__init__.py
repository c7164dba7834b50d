"""The preview page: live pictures with boxes and numbers in a browser. Start from ``sink.PreviewSink``."""
