"""The start of a process of the standalone server: ``python -m ws4redis.standalone OPTIONS``.

It is for the supervisor alone. A new interpreter, rather than a fork: gevent has to patch the
standard library before anything else is imported, and a restart has to read the project's new code.
"""

from __future__ import annotations

import sys

from ws4redis.standalone.options import GEVENT, ProcessOptions


def main() -> None:
    """Become what the options say."""
    options = ProcessOptions.from_json(sys.argv[1])
    if options.mode == GEVENT:
        from gevent import monkey

        monkey.patch_all()
    import django

    django.setup()
    from ws4redis.standalone.serving import run_process

    run_process(options)


if __name__ == '__main__':
    main()
