"""The standalone server: websockets without uWSGI, by the native door and the same loop."""
