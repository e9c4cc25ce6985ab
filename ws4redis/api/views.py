"""The views of the API: a key, then one method or several."""

from __future__ import annotations

import json
import logging
from typing import Any

import redis
from django.http import HttpRequest, JsonResponse
from django.utils.crypto import constant_time_compare
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from ws4redis.api.methods import ApiError, Params, Result, error_of, run
from ws4redis.conf import conf
from ws4redis.protocol.client.codes import ErrorCode

logger = logging.getLogger('ws4redis')

MAX_COMMANDS = 1000


def has_key(request: HttpRequest) -> bool:
    """Tell whether a request bears the key of the settings; without one nobody does."""
    key = conf.WS4REDIS_API_KEY
    given = request.headers.get('X-API-Key', '')
    if not given:
        kind, _, given = request.headers.get('Authorization', '').partition(' ')
        given = given.strip() if kind.lower() == 'apikey' else ''
    return bool(key) and constant_time_compare(given, key or '')


# Who has the key has no cookies, so there is nothing that a page of another site could abuse.
@csrf_exempt
@never_cache
@require_POST
def method_view(request: HttpRequest, method: str) -> JsonResponse:
    """Run the method that the path names, with the parameters in the body (JSON)."""
    if not has_key(request):
        return JsonResponse({'error': {'code': 401, 'message': 'unauthorized'}}, status=401)
    try:
        params = json.loads(request.body or b'{}')
    except (ValueError, RecursionError):
        return JsonResponse(_error(ErrorCode.BAD_REQUEST), status=400)
    if not isinstance(params, dict):
        return JsonResponse(_error(ErrorCode.BAD_REQUEST), status=400)
    if method == 'batch':
        return JsonResponse(_answer_batch(params))
    answer = _answer(method, params)
    is_unknown = answer.get('error', {}).get('code') == ErrorCode.METHOD_NOT_FOUND
    return JsonResponse(answer, status=404 if is_unknown else 200)


def _answer_batch(params: Params) -> Result:
    commands = params.get('commands')
    if not isinstance(commands, list) or len(commands) > MAX_COMMANDS:
        return _error(ErrorCode.BAD_REQUEST)
    return {'replies': [_answer_command(command) for command in commands]}


def _answer_command(command: Any) -> Result:
    if not isinstance(command, dict) or len(command) != 1:
        return _error(ErrorCode.BAD_REQUEST)
    ((method, params),) = command.items()
    if not isinstance(params, dict):
        return {method: _error(ErrorCode.BAD_REQUEST)}
    answer = _answer(method, params)
    return answer if 'error' in answer else {method: answer['result']}


def _answer(method: str, params: Params) -> Result:
    try:
        return {'result': run(method, params)}
    except ApiError as error:
        return error_of(error)
    except (redis.RedisError, OSError) as exc:
        logger.error('%s of the API failed: %s', method, exc)
        return _error(ErrorCode.INTERNAL)


def _error(code: ErrorCode) -> Result:
    return error_of(ApiError(code))
