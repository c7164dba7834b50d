"""The preview page: live images with boxes and numbers in a browser. Start from ``sink.PreviewSink``."""
