"""What several methods stand on."""
