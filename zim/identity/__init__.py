"""Who a client is: keys, and the tokens that they sign. Pure, but for `loading`, which reads files."""
