"""``manage.py ws4redis_doctor``: what is wrong with this installation, and how to mend it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ws4redis.doctor.findings import Finding, Verdict
from ws4redis.doctor.probe import Probe
from ws4redis.doctor.project_examination import examine_project
from ws4redis.doctor.redis_examination import examine_redis
from ws4redis.doctor.stream_probe import StreamProbe
from ws4redis.doctor.uwsgi_examination import examine_uwsgi


class Command(BaseCommand):
    """Examine the installation; exit with 1 when something must be mended."""

    help = (
        'Look at this installation of ws4redis and say what is wrong and how to mend it, the '
        'likeliest cause first.'
    )
    # The doctor reports what the checks find, and goes on.
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            '--url',
            help='a websocket to open through the whole chain, such as ws://localhost:8000/ws/',
        )
        parser.add_argument(
            '--origin',
            help="the header Origin of that handshake (default: that of the URL; '' sends none)",
        )
        parser.add_argument('--cookie', help="its header Cookie, such as 'sessionid=…'")
        parser.add_argument(
            '--insecure', action='store_true', help='accept any TLS certificate of that server'
        )
        parser.add_argument(
            '--uwsgi',
            action='append',
            default=[],
            metavar='INI',
            help='a configuration file of uWSGI to look at; may be given several times',
        )
        parser.add_argument(
            '--quick',
            action='store_true',
            help='do not wait until the websocket of --url has outlived two pings of the server',
        )
        parser.add_argument('--json', action='store_true', help='print JSON')

    def handle(self, *args: Any, **options: Any) -> None:
        findings = []
        for finding in self._examine(options):
            findings.append(finding)
            if not options['json']:
                # Now, since the next one may take its time.
                self._print(finding)
        if options['json']:
            self.stdout.write(json.dumps([finding.as_dict() for finding in findings], indent=2))
        errors = sum(finding.verdict is Verdict.ERROR for finding in findings)
        if errors:
            raise CommandError(f'{errors} finding{"s" * (errors > 1)} must be mended', returncode=1)

    def _examine(self, options: dict[str, Any]) -> Iterator[Finding]:
        # What fails most often comes first.
        yield from examine_redis()
        yield from examine_project()
        for path in options['uwsgi']:
            yield from examine_uwsgi(Path(path))
        if options['url']:
            yield from self._probe(options)

    def _probe(self, options: dict[str, Any]) -> Iterator[Finding]:
        is_reached = False
        for kind in (Probe, StreamProbe):
            probe = kind(
                options['url'],
                origin=options['origin'],
                cookie=options['cookie'],
                verify_tls=not options['insecure'],
                stays_quiet=not options['quick'],
            )
            for finding in probe.run():
                is_reached = is_reached or finding.subject == 'handshake'
                yield finding
            if not is_reached:
                return

    def _print(self, finding: Finding) -> None:
        styles = {
            Verdict.GOOD: self.style.SUCCESS,
            Verdict.WARNING: self.style.WARNING,
            Verdict.ERROR: self.style.ERROR,
        }
        style = styles.get(finding.verdict, str)
        self.stdout.write(f'{style(f"{finding.verdict:<7}")} {finding.subject}: {finding.text}')
        if finding.remedy:
            self.stdout.write(f'        {finding.remedy}')
