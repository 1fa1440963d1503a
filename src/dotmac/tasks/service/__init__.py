"""The service: a process one runs, looks at and operates. It reaches the system through the manager only."""
