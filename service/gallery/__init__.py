"""Gallery images: the record format, the store, and a cache of decoded records."""
