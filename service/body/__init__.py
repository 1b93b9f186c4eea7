"""Request bodies: from bytes to checked descriptors."""
