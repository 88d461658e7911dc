"""The README's pictures. See README.md beside this file."""
