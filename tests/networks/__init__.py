"""Networks as their users write them, written by somebody who did not write the search for channel groups."""
