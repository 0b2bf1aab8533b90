"""``ice-punch demo``: a server and two peers, each a process, punch a hole."""
