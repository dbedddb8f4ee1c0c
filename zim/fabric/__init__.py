"""The domain: what a fabric can be asked for, and within which limits. It knows nobody."""
