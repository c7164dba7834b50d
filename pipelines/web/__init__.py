"""What the two HTTP servers, the preview page and the metrics, have in common: names, addresses, limits for visitors."""
