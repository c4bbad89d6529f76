"""Output for people: progress, status, plans, documents and logs."""
