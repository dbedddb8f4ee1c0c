"""The front desk: publishes for the HTTP API, and says who a client is."""
