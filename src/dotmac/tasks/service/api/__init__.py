"""The HTTP API under ``/v1``: one module a subject, and the document that describes them all."""
