"""Why it failed: what can be seen from outside, and the causes it points to."""
