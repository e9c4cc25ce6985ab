"""The alert rules and the dashboard that are shipped ask for metrics that there are."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

import ws4redis.dashboard.metrics  # noqa: F401 - declares all metrics
from tests.requirements import require_executable
from tests.server_process import ROOT
from tests.timeouts import SOON_SECONDS
from ws4redis.loop.metrics import Kind, declarations

MONITORING: Path = ROOT / 'examples' / 'deploy' / 'monitoring'
ALERTS: dict[str, Any] = yaml.safe_load((MONITORING / 'alerts.yml').read_text(encoding='utf-8'))
DASHBOARD: dict[str, Any] = json.loads((MONITORING / 'grafana.json').read_text(encoding='utf-8'))


def rules() -> list[dict[str, Any]]:
    return [rule for group in ALERTS['groups'] for rule in group['rules']]


def names_of_series() -> set[str]:
    names = {'ws4redis_processes'}
    for declaration in declarations.values():
        name = f'ws4redis_{declaration.name}'
        if declaration.kind is Kind.COUNTER:
            names.add(f'{name}_total')
        elif declaration.kind is Kind.HISTOGRAM:
            names |= {f'{name}_bucket', f'{name}_sum', f'{name}_count'}
        else:
            names.add(name)
    return names


def labels_of_series() -> set[str]:
    return {'process', 'le'} | {d.label for d in declarations.values() if d.label}


def test_they_ask_for_metrics_that_there_are() -> None:
    expressions = [rule['expr'] for rule in rules()]
    expressions += [target['expr'] for panel in DASHBOARD['panels'] for target in panel['targets']]
    for expression in expressions:
        names = set(re.findall(r'\bws4redis_\w+', expression))
        assert names
        assert names <= names_of_series()
        for labels in re.findall(r'by \(([^)]*)\)', expression):
            assert set(re.split(r', *', labels)) <= labels_of_series()


def test_each_alert_says_why() -> None:
    for rule in rules():
        assert rule['labels']['severity'] in {'critical', 'warning'}
        assert len(rule['annotations']['description']) > 40


def test_promtool_accepts_the_rules() -> None:
    promtool = require_executable('promtool')
    done = subprocess.run(
        [promtool, 'check', 'rules', MONITORING / 'alerts.yml'],
        capture_output=True,
        text=True,
        timeout=SOON_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    places = [(panel['gridPos']['x'], panel['gridPos']['y']) for panel in DASHBOARD['panels']]
    assert len(set(places)) == len(places)
    assert len({panel['id'] for panel in DASHBOARD['panels']}) == len(places)
