"""What people look at: metrics, health and the live page."""
