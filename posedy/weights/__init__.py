"""Networks in files: reading and writing them, converting them, starting from those of others."""
