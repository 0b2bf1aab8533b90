"""The NAT laboratory: a virtual internet in virtual time, and kernel NATs in network namespaces."""
