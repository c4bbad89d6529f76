"""Whether a cluster works: checks in ascending cost, from its nodes to its interconnect."""
