"""What the other contenders need, installed outside of the source tree with pinned versions."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

PYTHON_PACKAGES = {
    'Django': '5.2.19',
    'channels': '4.3.2',
    'channels_redis': '4.3.0',
    'uvicorn[standard]': '0.54.0',
    # Not left to the resolver: they are what the measured time is spent in.
    'msgpack': '1.2.4',
    'redis': '8.1.0',
    'uvloop': '0.23.0',
    'websockets': '17.4',
}
NODE_PACKAGES = {
    '@oven/bun-linux-x64': '1.4.5',
    'ioredis': '6.0.0',
    'ws': '8.23.0',
}
BUN = Path('@oven/bun-linux-x64/bin/bun')
NCHAN = Path('/usr/lib/nginx/modules/ngx_nchan_module.so')
INSTALL_SECONDS = 600


class NotInstalled(Exception):
    """A contender cannot run here; the message is the reason."""


def cache_directory() -> Path:
    """Return the directory that the contenders are installed in."""
    root = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(root) / 'ws4redis'


def channels_python() -> Path:
    """Return the Python of an environment with Channels in it, made when first needed.

    Raises:
        NotInstalled: pip failed.
    """
    environment = cache_directory() / 'bench-venv'
    python = environment / 'bin' / 'python'
    pins = [f'{name}=={version}' for name, version in PYTHON_PACKAGES.items()]
    stamp = environment / 'bench-pins.json'
    wanted = json.dumps([sys.version, pins])
    if not stamp.exists() or stamp.read_text() != wanted:
        _run([sys.executable, '-m', 'venv', '--clear', environment], 'Channels')
        _run([python, '-m', 'pip', 'install', '--quiet', *pins], 'Channels')
        stamp.write_text(wanted)
    return python


def javascript(runtime: str) -> tuple[Path, Path]:
    """Return `node` or `bun`, and the directory with the packages, installed when first needed.

    Raises:
        NotInstalled: there is no Node or no npm, or npm failed.
    """
    node, npm = shutil.which('node'), shutil.which('npm')
    if node is None or npm is None:
        raise NotInstalled('node and npm are not on PATH')
    directory = cache_directory() / 'bench-node'
    modules = directory / 'node_modules'
    stamp = directory / 'bench-pins.json'
    wanted = json.dumps(NODE_PACKAGES)
    if not stamp.exists() or stamp.read_text() != wanted:
        directory.mkdir(parents=True, exist_ok=True)
        package = {'name': 'ws4redis-bench', 'private': True, 'dependencies': NODE_PACKAGES}
        (directory / 'package.json').write_text(json.dumps(package))
        _run([npm, 'install', '--no-audit', '--no-fund', '--prefix', directory], 'Node packages')
        stamp.write_text(wanted)
    return (modules / BUN if runtime == 'bun' else Path(node)), modules


def nginx_with_nchan() -> Path:
    """Return the NGINX that has the module Nchan.

    Raises:
        NotInstalled: there is none.
    """
    program = shutil.which('nginx', path=f'{os.environ["PATH"]}:/usr/sbin')
    if program is None or not NCHAN.exists():
        raise NotInstalled('no NGINX with Nchan: apt-get install libnginx-mod-nchan')
    return Path(program)


def c_compiler() -> str | None:
    """Return the C compiler, if there is one."""
    return shutil.which('cc') or shutil.which('gcc')


def compiled(source: Path, *libraries: str) -> Path:
    """Return the program made of a C source, compiled when first needed.

    Raises:
        NotInstalled: it could not be compiled.
    """
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:12]
    program = cache_directory() / f'bench-{source.stem}-{digest}'
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        linked = [f'-l{library}' for library in libraries]
        _run([c_compiler() or 'cc', '-O2', '-o', program, source, *linked], source.name)
    return program


def uwsgi(environment: Path) -> Path:
    """Return the uWSGI of a Python's environment, else the one on PATH.

    Raises:
        NotInstalled: there is none.
    """
    for name in ('uwsgi', 'pyuwsgi'):
        candidate = environment / 'bin' / name
        if candidate.exists():
            return candidate
        found = shutil.which(name)
        if found is not None:
            return Path(found)
    raise NotInstalled('no uwsgi: pip install pyuwsgi')


def _run(command: list[str | Path], what: str) -> None:
    try:
        subprocess.run(
            [str(part) for part in command],
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=INSTALL_SECONDS,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired, OSError) as exc:
        output = getattr(exc, 'output', None) or ''
        reason = '\n'.join(str(output).splitlines()[-5:])
        raise NotInstalled(f'{what} could not be installed: {exc}\n{reason}') from exc
