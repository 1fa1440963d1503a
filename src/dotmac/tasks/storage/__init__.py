"""Where sagas, idempotency records, worker leases and locks live. `protocol` is the contract, the rest fulfil it."""
