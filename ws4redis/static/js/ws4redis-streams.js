/**
 * WS4Redis.connect() where websockets are blocked: load it after ws4redis.js.
 *
 * The server's half is an event stream, and what the page says goes in requests.
 */
(function () {
    'use strict';

    const OPEN = 1;
    const CLOSED = 3;

    if (typeof module === 'object' && module !== null && module.exports) {
        // With it a page of modules says by itself what it is for.
        module.exports = function (WS4Redis) { WS4Redis.emulate = emulate; };
    } else {
        self.WS4Redis.emulate = emulate;
    }

    /** Return what looks like a websocket, and like one does not reconnect. */
    function emulate(uri) {
        const address = new URL(uri.replace(/^ws/i, 'http'));
        const folder = address.pathname.replace(/[^/]*$/, '');
        const socket = {readyState: 0, send: send, close: close};
        let source = null;
        let stream = null;
        // What is to be said, in its order, once the one before has arrived.
        let waiting = [];
        let is_sending = false;

        // Whether a server is there at all, before anything is said to it.
        fetch(at('emulation'), {method: 'OPTIONS', credentials: 'include'}).then(function (answer) {
            if (!answer.ok) {
                lose('the server answers ' + answer.status);
            } else if (socket.readyState !== CLOSED) {
                socket.readyState = OPEN;
                tell('onopen');
            }
        }).catch(lose);
        return socket;

        function at(name) {
            address.pathname = folder + name;
            return address.toString();
        }

        function tell(name, event) {
            if (socket[name]) {
                socket[name](event);
            }
        }

        function send(data) {
            if (source === null) {
                open(data);
            } else {
                waiting.push(data);
                flush();
            }
        }

        /** The first that is said is `connect`, which opens the stream. */
        function open(connect) {
            const target = new URL(at('sse'));
            target.searchParams.set('cf_connect', connect);
            source = new EventSource(target.toString(), {withCredentials: true});
            source.onmessage = function (event) { received(event.data); };
            source.onerror = function () { lose('the event stream is lost'); };
        }

        function received(data) {
            let farewell = null;
            data.split('\n').filter(Boolean).map(JSON.parse).forEach(function (reply) {
                stream = reply.connect || stream;
                farewell = reply.push && reply.push.disconnect || farewell;
            });
            if (farewell === null) {
                tell('onmessage', {data: data});
                flush();
            } else {
                end(farewell.code, farewell.reason);
            }
        }

        function flush() {
            if (is_sending || stream === null || !waiting.length || socket.readyState !== OPEN) {
                return;
            }
            is_sending = true;
            const said = {session: stream.session, node: stream.node, data: waiting.join('\n')};
            waiting = [];
            fetch(at('emulation'), {
                method: 'POST',
                credentials: 'include',
                headers: {'Content-Type': 'application/json'},
                body: JSON.stringify(said)
            }).then(function (answer) {
                is_sending = false;
                if (answer.ok) {
                    flush();
                } else {
                    lose('the server answers ' + answer.status);
                }
            }).catch(lose);
        }

        function lose(reason) {
            end(1006, String(reason));
        }

        function close(code, reason) {
            Promise.resolve().then(end.bind(null, code || 1000, reason || ''));
        }

        function end(code, reason) {
            if (source !== null) {
                source.close();
            }
            if (socket.readyState !== CLOSED) {
                socket.readyState = CLOSED;
                tell('onclose', {type: 'close', code: code, reason: reason,
                    wasClean: code !== 1006});
            }
        }
    }
}());
