"""Pictures that come over HTTP, to descriptors: a queue, and the process that extracts."""
