"""``ws4redis.js`` as a file: what a linter says, and its life as a CommonJS module."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import ws4redis
from tests.browser.static_pages import CLIENT
from tests.requirements import require_executable
from tests.timeouts import SERVER_SECONDS, SOON_SECONDS

PACKAGE = Path(ws4redis.__file__).parent
ROOT = PACKAGE.parent


def test_a_linter_accepts_every_script(node_modules: Path, tmp_path: Path) -> None:
    scripts = [*PACKAGE.rglob('*.js'), *ROOT.glob('examples/*/static/**/*.js')]
    assert {'ws4redis.js', 'chat.js'} <= {script.name for script in scripts}
    # ESLint looks at files below its configuration only.
    for script in scripts:
        copy = tmp_path / script.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(script, copy)
    (tmp_path / 'eslint.config.mjs').symlink_to(node_modules.parent / 'eslint.config.mjs')
    (tmp_path / 'node_modules').symlink_to(node_modules)
    outcome = subprocess.run(
        [node_modules / '.bin/eslint', '--max-warnings=0', PACKAGE.name, 'examples'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SERVER_SECONDS,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


def run_node(program: str) -> dict[str, object]:
    """Run a program with `WS4Redis` required, and return the object that it prints."""
    node = require_executable('node')
    outcome = subprocess.run(
        [node, '-e', f'const WS4Redis = require({json.dumps(str(CLIENT))});{program}'],
        capture_output=True,
        text=True,
        timeout=SOON_SECONDS,
        check=True,
    )
    result: dict[str, object] = json.loads(outcome.stdout)
    return result


def test_it_is_a_commonjs_module_and_makes_no_global() -> None:
    result = run_node("""
        console.log(JSON.stringify({
            type: typeof WS4Redis,
            name: WS4Redis.name,
            is_global: 'WS4Redis' in globalThis,
        }));
    """)
    assert result == {'type': 'function', 'name': 'WS4Redis', 'is_global': False}


def test_as_a_module_it_works_without_a_window_and_lets_node_end() -> None:
    """Node ends only when no timer is left: the time-out of ``run_node`` is part of the test."""
    result = run_node("""
        const seen = [];
        globalThis.WebSocket = class {
            constructor(uri) {
                seen.push(uri);
                this.readyState = 0;
                Promise.resolve().then(() => { this.readyState = 1; this.onopen({}); });
            }
            send(data) { seen.push(data); }
            close() { this.readyState = 3; this.onclose({code: 1000}); }
        };
        console.error = function (error) { seen.push(error.message); };
        const ws = WS4Redis({
            uri: 'ws://localhost/ws/chat',
            heartbeat_msg: '--heartbeat--',
            connected: function () {
                ws.send_message('hello');
                setTimeout(ws.close, 10);
                throw new Error('reported');
            },
            disconnected: function (event) {
                seen.push(event.code);
                console.log(JSON.stringify({seen}));
            },
        });
    """)
    assert result == {'seen': ['ws://localhost/ws/chat', 'hello', 'reported', 1000]}
