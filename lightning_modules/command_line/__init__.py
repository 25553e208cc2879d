"""How commands are read, and how their output and errors look."""
