"""A request's body on its way from bytes to checked descriptors."""
