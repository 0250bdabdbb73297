"""Programs that run with Paddle Serving's own packages, or in place of its C++ server."""
