"""How close does each prior come to known objects? See README.md beside this file."""
