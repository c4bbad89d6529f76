"""The config in this account: identity, zones and every derived name."""
