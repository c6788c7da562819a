"""Our own search for channel groups: labels that travel through the operators of one forward pass."""
