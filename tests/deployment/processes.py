"""The servers that deployments consist of."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from tests.deployment.installation import EXAMPLES, Installation
from tests.programs import uwsgi_command, wait_for_port
from tests.requirements import require, require_executable
from tests.server_process import ServerProcess

_APACHE_MODULES = Path('/usr/lib/apache2/modules')


class IniUwsgi(ServerProcess):
    """uWSGI with an ini file.

    ``listens_on`` is the path of its Unix socket, or its address; ``apps`` how many applications
    its log announces until it is ready.
    """

    name = 'uWSGI'

    def __init__(
        self,
        ini: Path,
        installation: Installation,
        listens_on: str | tuple[str, int],
        *,
        apps: int = 1,
    ) -> None:
        super().__init__(env=installation.env, cwd=EXAMPLES)
        self._ini = ini
        self._listens_on = listens_on
        self._apps = apps

    def command(self) -> Sequence[str]:
        return [*uwsgi_command(), '--ini', str(self._ini)]

    def wait_until_ready(self, since: int) -> None:
        self.wait_for_log(r'WSGI app 0 .* ready in', since=since, count=self._apps)
        wait_for_port(self._listens_on)

    def reload(self) -> None:
        """Reload gracefully (SIGHUP) and wait until it serves again."""
        since = self.log_position()
        self.signal(signal.SIGHUP)
        self.wait_until_ready(since)


class UwsgiEmperor(IniUwsgi):
    """uWSGI's emperor with the vassals of a folder."""

    name = "uWSGI's emperor"

    def __init__(self, ini: Path, installation: Installation) -> None:
        super().__init__(ini, installation, ('127.0.0.1', installation.port), apps=2)
        self._vassals = ini.parent / 'vassals'
        self._wrapper = self._make_wrapper(installation.directory)

    @staticmethod
    def _make_wrapper(directory: Path) -> Path:
        # The wheel pyuwsgi is no program that an emperor could start by itself.
        wrapper = directory / 'vassal'
        pyuwsgi = Path(sysconfig.get_path('scripts')) / 'pyuwsgi'
        wrapper.write_text(f'#!/bin/sh\nexec {pyuwsgi} --binary-path {sys.executable} "$@"\n')
        wrapper.chmod(0o755)
        return wrapper

    def command(self) -> Sequence[str]:
        return [*super().command(), '--emperor-wrapper', str(self._wrapper)]

    def reload(self) -> None:
        """Touch the vassal of the websocket loop, and wait until it serves again."""
        since = self.log_position()
        ini = self._vassals / 'wsserver.ini'
        # Its time stamp has seconds; a later one in any case is what the emperor looks for.
        later = ini.stat().st_mtime + 10
        os.utime(ini, (later, later))
        self.wait_for_log(r'WSGI app 0 .* ready in', since=since)


class RunWsserver(ServerProcess):
    """``manage.py run_wsserver`` on a Unix socket."""

    name = 'run_wsserver'

    def __init__(self, installation: Installation) -> None:
        super().__init__(env=installation.env, cwd=EXAMPLES)
        self._path = installation.directory / 'wsserver.socket'

    def command(self) -> Sequence[str]:
        # As the unit for systemd: the proxy runs as another user.
        umask = ['sh', '-c', 'umask 0111; exec "$@"', 'sh']
        return [*umask, sys.executable, 'manage.py', 'run_wsserver', f'unix:{self._path}']

    def wait_until_ready(self, since: int) -> None:
        wait_for_port(str(self._path))

    def reload(self) -> None:
        since = self.log_position()
        self.signal(signal.SIGHUP)
        self.wait_for_log(r'.', since=since)
        self.wait_until_ready(since)


class Gunicorn(ServerProcess):
    """Django under gunicorn, for any WSGI server, on a Unix socket."""

    name = 'gunicorn'

    def __init__(self, installation: Installation) -> None:
        super().__init__(env=installation.env, cwd=EXAMPLES)
        self._path = str(installation.directory / 'gunicorn.socket')

    def command(self) -> Sequence[str]:
        gunicorn = Path(sysconfig.get_path('scripts')) / 'gunicorn'
        require(gunicorn.exists(), 'gunicorn is not installed')
        return [str(gunicorn), '--bind', f'unix:{self._path}', '--umask', '0', 'wsgi_django']

    def wait_until_ready(self, since: int) -> None:
        wait_for_port(self._path)


class Nginx(ServerProcess):
    """NGINX with one of the example's configuration files in its http section."""

    name = 'NGINX'

    def __init__(self, conf: Path, installation: Installation) -> None:
        super().__init__(cwd=installation.directory)
        self._executable = require_executable('nginx')
        self._installation = installation
        self._conf = conf
        self._main = installation.directory / 'nginx-main.conf'
        self._write_main()

    def _write_main(self) -> None:
        directory = self._installation.directory
        parameters = Path('/etc/nginx/uwsgi_params').read_text()
        (directory / 'uwsgi_params').write_text(self._installation.localise(parameters))
        # For the static files: what is written without a type is not run by a browser.
        shutil.copy('/etc/nginx/mime.types', directory)
        temporary = '\n'.join(
            f'{name}_temp_path {directory}/nginx-{name};'
            for name in ('client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi')
        )
        self._main.write_text(
            f'daemon off;\npid {directory}/nginx.pid;\nerror_log stderr info;\n'
            f'{"user root;" if os.geteuid() == 0 else ""}\nevents {{}}\n'
            f'http {{\naccess_log off;\ninclude mime.types;\n{temporary}\n'
            f'include {self._conf};\n}}\n'
        )

    def command(self) -> Sequence[str]:
        return [self._executable, '-c', str(self._main), '-e', 'stderr']

    def wait_until_ready(self, since: int) -> None:
        wait_for_port(('127.0.0.1', self._installation.port))


class Apache(ServerProcess):
    """Apache 2.4 with one of the example's configuration files."""

    name = 'Apache'

    def __init__(self, conf: Path, installation: Installation) -> None:
        super().__init__(cwd=installation.directory)
        self._executable = require_executable('apache2')
        self._installation = installation
        self._main = installation.directory / 'apache-main.conf'
        modules = ['mpm_event', 'authz_core', 'alias', 'mime', 'proxy', 'proxy_http']
        modules += ['proxy_wstunnel', 'proxy_uwsgi']
        load = '\n'.join(
            f'LoadModule {name}_module {_APACHE_MODULES}/mod_{name}.so' for name in modules
        )
        user = 'User www-data\nGroup www-data\n' if os.geteuid() == 0 else ''
        self._main.write_text(
            f'{load}\n{user}ServerName localhost\nServerRoot {installation.directory}\n'
            f'Listen 127.0.0.1:{installation.port}\nPidFile {installation.directory}/apache.pid\n'
            f'DefaultRuntimeDir {installation.directory}\nErrorLog /dev/stderr\n'
            f'TypesConfig /etc/mime.types\nInclude {conf}\n'
        )

    def command(self) -> Sequence[str]:
        return [self._executable, '-f', str(self._main), '-DFOREGROUND']

    def wait_until_ready(self, since: int) -> None:
        wait_for_port(('127.0.0.1', self._installation.port))
