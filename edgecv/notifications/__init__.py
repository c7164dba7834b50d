"""Of which events people and the cloud are told, and how often."""
