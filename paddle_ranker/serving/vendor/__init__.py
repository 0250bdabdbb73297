"""What drives Paddle Serving's own packages."""
