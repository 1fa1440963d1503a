"""The runtime: a supervision tree that owns sagas, keeps leases, takes over what others lost, and cleans up."""
