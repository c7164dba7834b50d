"""The web server of the preview page, ``/metrics`` and ``/healthz``: addresses, names that are believed, limits for visitors."""
