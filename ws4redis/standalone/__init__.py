"""The standalone server: websockets without uWSGI, by gevent's pywsgi and the same loop."""
