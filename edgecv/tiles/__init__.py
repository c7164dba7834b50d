"""An image looked at in overlapping tiles, so that small objects are seen as large as the model can see them."""
