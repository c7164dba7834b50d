"""Templates of webhooks: how a receiver such as ntfy wants to be told, a TOML file each."""
