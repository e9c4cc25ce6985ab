"""Judge the protocol with the Autobahn test suite: ``python -m conformance --help``."""
