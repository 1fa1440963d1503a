"""What feeds monitoring from the hooks: Prometheus metrics and OpenTelemetry traces."""
