"""What belongs to one paper only; the five packages know nothing of each other."""
