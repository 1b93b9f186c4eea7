"""The contract's types: bodies of requests, arrays, sizes, options and errors; no I/O."""
