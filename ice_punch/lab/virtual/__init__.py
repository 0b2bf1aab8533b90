"""A virtual internet in virtual time, without I/O."""
