"""The dashboard: pages for people who look at sagas and operate on them, rendered here, without any other server."""
