"""What stage 2 does to a texture."""
