"""What belongs to one chapter and one paper: a package a paper, none of which knows another."""
