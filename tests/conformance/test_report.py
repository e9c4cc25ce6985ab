from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from conformance.autobahn import AGENT
from conformance.report import CaseResult, format_report, read_results


def write_run(output: Path, **cases: dict[str, Any]) -> None:
    """Write the files of a run, as far as they are read; ``_`` in names stands for a dot."""
    index = {}
    for name, changes in cases.items():
        case = name.removeprefix('case_').replace('_', '.')
        summary = {'behavior': 'OK', 'behaviorClose': 'OK', 'duration': 5} | changes
        details = {
            'remoteCloseCode': 1000,
            'rxFrameStats': {'1': 1, '8': 1},
            'txFrameStats': {'8': 1},
            'httpResponse': 'HTTP/1.1 101 Switching Protocols',
        } | changes
        index[case] = summary | {'reportfile': f'{name}.json'}
        (output / f'{name}.json').write_text(json.dumps(details), encoding='utf-8')
    (output / 'index.json').write_text(json.dumps({AGENT: index}), encoding='utf-8')


def only_result(output: Path, **changes: Any) -> CaseResult:
    write_run(output, case_1_1_1=changes)
    (result,) = read_results(output, ['1.1.1'])
    return result


def test_a_good_case_has_passed_and_needs_no_remark(tmp_path: Path) -> None:
    result = only_result(tmp_path)
    assert result.passed
    assert result.is_plainly_ok
    assert result.group == 1


def test_a_case_that_was_planned_and_did_not_run_has_failed(tmp_path: Path) -> None:
    write_run(tmp_path, case_1_1_1={})
    results = read_results(tmp_path, ['1.1.1', '1.1.2'])
    assert [result.passed for result in results] == [True, False]
    report = format_report(results)
    assert '1.1.2: not run' in report
    assert '1.1.1' not in report


def test_a_run_without_any_result_has_failed(tmp_path: Path) -> None:
    assert not any(result.passed for result in read_results(tmp_path, ['1.1.1', '13.7.18']))


def test_messages_and_closing_must_both_be_right(tmp_path: Path) -> None:
    assert not only_result(tmp_path, behavior='FAILED').passed
    assert not only_result(tmp_path, behaviorClose='WRONG CODE').passed
    assert not only_result(tmp_path, behaviorClose='UNCLEAN').passed
    assert not only_result(tmp_path, behaviorClose='FAILED BY CLIENT').passed
    assert not only_result(tmp_path, behavior='UNIMPLEMENTED').passed


def test_what_is_not_strict_or_informational_passes_and_is_named(tmp_path: Path) -> None:
    for behavior in ('NON-STRICT', 'INFORMATIONAL'):
        result = only_result(tmp_path, behavior=behavior)
        assert result.passed
        assert not result.is_plainly_ok
        assert f'1.1.1: {behavior}' in format_report([result])


def test_a_dropped_connection_is_reported(tmp_path: Path) -> None:
    result = only_result(tmp_path, remoteCloseCode=None, rxFrameStats={'1': 1})
    assert result.remarks == ['connection dropped without a close frame']
    assert 'dropped' in format_report([result])


def test_an_empty_answer_to_a_close_frame_is_reported(tmp_path: Path) -> None:
    result = only_result(tmp_path, remoteCloseCode=None)
    assert result.remarks == ['close frame answered by an empty one']


def test_a_second_close_frame_is_reported(tmp_path: Path) -> None:
    assert only_result(tmp_path, rxFrameStats={'8': 2}).remarks == ['2 close frames']


def test_a_case_without_handshake_has_no_duration(tmp_path: Path) -> None:
    assert only_result(tmp_path).milliseconds == 5
    refused = only_result(tmp_path, httpResponse='HTTP/1.1 500 Error', duration=1_795_249_011_200)
    assert refused.milliseconds == 0


def test_the_table_counts_each_group_and_all(tmp_path: Path) -> None:
    write_run(
        tmp_path,
        case_1_1_1={},
        case_1_1_2={'behavior': 'NON-STRICT'},
        case_7_1_6={'behavior': 'INFORMATIONAL', 'behaviorClose': 'INFORMATIONAL'},
        case_12_1_1={'behavior': 'FAILED'},
    )
    lines = format_report(
        read_results(tmp_path, ['1.1.1', '1.1.2', '7.1.6', '12.1.1', '12.1.2'])
    ).splitlines()
    counts = {line.split()[0]: line.split()[1:7] for line in lines[:5]}
    assert counts['1'] == ['2', '1', '1', '0', '0', '0']
    assert counts['7'] == ['1', '0', '0', '1', '0', '0']
    assert counts['12'] == ['2', '0', '0', '0', '1', '1']
    assert counts['all'] == ['5', '1', '1', '1', '1', '1']
