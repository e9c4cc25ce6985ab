/**
 * WS4Redis: the browser's end of a websocket to ws4redis.
 *
 *     const chat = new WS4Redis({uri: '/ws/chat?subscribe-broadcast', receive_message: show});
 *
 * A link keeps one websocket open. It is attached (`socket`), waiting (timer), suspended (in the
 * back/forward cache) or closed. Over it a session speaks the Centrifuge client protocol.
 */
(function () {
    'use strict';

    // WebSocket.readyState
    const CONNECTING = 0;
    const OPEN = 1;
    const CLOSING = 2;
    const CLOSED = 3;
    const STATE_NAMES = ['connecting', 'open', 'closing', 'closed'];

    const CALLBACKS = ['connecting', 'connected', 'receive_message', 'disconnected', 'gap'];
    const OPTIONS = CALLBACKS.concat('uri', 'heartbeat_msg');
    const CLIENT_CALLBACKS = ['connecting', 'connected', 'disconnected', 'message', 'get_token'];
    const CLIENT_OPTIONS = CLIENT_CALLBACKS.concat(
        'uri', 'token', 'token_url', 'data', 'max_queue'
    );

    const SUBPROTOCOL = 'centrifuge-json';

    const HEARTBEAT_INTERVAL_MS = 5000;
    const MAX_UNANSWERED_HEARTBEATS = 3;

    // Browsers leave a handshake that nobody answers hanging for minutes.
    const CONNECT_TIMEOUT_MS = 30000;
    const PING_DELAY_MS = 10000;

    // Doubled with every further attempt.
    const FIRST_DELAY_MS = 2000;
    const LONGEST_DELAY_MS = 30000;
    const SHORTEST_PART_OF_DELAY = 0.25;

    // The server may accept websockets only to close them.
    const STABLE_AFTER_MS = 5000;

    const MAX_QUEUE = 100;
    const NORMAL_CLOSURE = 1000;
    const ABNORMAL_CLOSURE = 1006;
    const INTERNAL_ERROR = 100;
    const TOKEN_EXPIRED = 109;

    /** Return a random delay, lest the clients of a restarted server come at once. */
    function reconnection_delay(failed_attempts) {
        const longest = Math.min(FIRST_DELAY_MS * Math.pow(2, failed_attempts), LONGEST_DELAY_MS);
        const part = SHORTEST_PART_OF_DELAY + (1 - SHORTEST_PART_OF_DELAY) * Math.random();
        return longest * part;
    }

    function comes_back(code) {
        return !(code >= 3500 && code < 4000 || code >= 4500 && code < 5000);
    }

    /** Resolve an address, which browsers did not do before 2024. */
    function absolute(uri) {
        const here = typeof self === 'undefined' ? undefined : self.location;
        if (/^wss?:/i.test(uri) || here === undefined || typeof URL !== 'function') {
            return uri;
        }
        const base = typeof document === 'undefined' ? here.href : document.baseURI;
        return new URL(uri, base).href.replace(/^http/, 'ws');
    }

    function validated(options, names, callbacks) {
        if (options === null || typeof options !== 'object' || !options.uri) {
            throw new TypeError('WS4Redis: option uri is required');
        }
        const is_url = typeof URL === 'function' && options.uri instanceof URL;
        if (typeof options.uri !== 'string' && !is_url) {
            throw new TypeError('WS4Redis: option uri must be a string');
        }
        // A template writes `null` where the server has no heartbeat.
        if (options.heartbeat_msg && typeof options.heartbeat_msg !== 'string') {
            throw new TypeError('WS4Redis: option heartbeat_msg must be a string or null');
        }
        const result = Object.assign({}, options, {
            uri: absolute(String(options.uri)),
            heartbeat_msg: options.heartbeat_msg || null
        });
        callbacks.forEach(function (name) {
            const callback = options[name];
            if (callback !== undefined && callback !== null && typeof callback !== 'function') {
                throw new TypeError('WS4Redis: option ' + name + ' must be a function');
            }
        });
        Object.keys(options).forEach(function (name) {
            if (names.indexOf(name) === -1) {
                console.warn('WS4Redis: there is no option ' + name);
            }
        });
        return result;
    }

    function close_event(code, reason) {
        const details = {code: code, reason: reason, wasClean: code !== ABNORMAL_CLOSURE};
        return typeof CloseEvent === 'function' ? new CloseEvent('close', details)
            : Object.assign({type: 'close'}, details);
    }

    function abnormal_closure(reason) {
        return close_event(ABNORMAL_CLOSURE, reason);
    }

    function report(error) {
        if (typeof reportError === 'function') {
            reportError(error);
        } else {
            console.error(error);
        }
    }

    /** Call a callback; what it throws must not end the reconnecting. */
    function call(object, name, args) {
        if (typeof object[name] === 'function') {
            try {
                return object[name].apply(object, args || []);
            } catch (error) {
                report(error);
            }
        }
        return undefined;
    }

    function failure(message, details) {
        return Object.assign(new Error('WS4Redis: ' + message), details);
    }

    function random_name() {
        return Math.random().toString(36).slice(2) + Math.random().toString(36).slice(2);
    }

    function to_data(bytes) {
        let text = '';
        bytes.forEach(function (byte) { text += String.fromCharCode(byte); });
        return {b64: btoa(text)};
    }

    function from_data(data) {
        if (typeof data === 'string') {
            return data;
        }
        const bytes = Uint8Array.from(atob(data.b64), function (c) { return c.charCodeAt(0); });
        return new Blob([bytes]);
    }

    function with_query(uri, name, value) {
        if (value) {
            uri = new URL(uri);
            uri.searchParams.set(name, value);
        }
        return String(uri);
    }

    function ask_for_token(url) {
        return fetch(url, {credentials: 'include'}).then(function (answer) {
            if (!answer.ok) {
                throw failure('no token', {
                    code: answer.status, delay_ms: answer.headers.get('Retry-After') * 1000
                });
            }
            return answer.json();
        }).then(function (answer) { return answer.token; });
    }

    /** Return an event stream that looks like a websocket. */
    function make_stream(uri, on) {
        const source = new EventSource(uri.replace(/^ws/i, 'http'), {withCredentials: true});
        const stream = {
            readyState: CONNECTING,
            close: function () {
                source.close();
                stream.readyState = CLOSING;
                Promise.resolve().then(end.bind(null, NORMAL_CLOSURE, ''));
            }
        };
        source.onopen = function () {
            stream.readyState = OPEN;
            stream.onopen();
        };
        listen('message', function (data) { stream.onmessage({data: data}); });
        listen('binary', function (data) { stream.onmessage({data: from_data({b64: data})}); });
        listen('gap', function (data) { on.gap(JSON.parse(data)); });
        listen('position', function () {});
        listen('close', function (data) {
            const why = JSON.parse(data);
            end(why.code, why.reason);
        });
        source.onerror = end.bind(null, ABNORMAL_CLOSURE, 'the event stream is lost');
        return stream;

        function listen(name, callback) {
            source.addEventListener(name, function (event) {
                if (stream.onmessage) {
                    on.position(event.lastEventId);
                    callback(event.data);
                }
            });
        }

        function end(code, reason) {
            source.close();
            stream.readyState = CLOSED;
            if (stream.onclose) {
                stream.onclose(close_event(code, reason));
            }
        }
    }

    /**
     * Keep a websocket open until `close()`, or until the server wants no more.
     *
     * Where it is blocked, `on.open_stream` takes over. With `on.gap` a server that does not know
     * our subprotocol is tried without it. `on.ticket` spares the server look-ups.
     */
    function make_link(uri, on) {
        const window_events = {
            pagehide: suspend, pageshow: resume, online: hurry, offline: on.offline
        };
        let socket = null;
        let timer = null;
        let wanted = true;
        let suspended = false;
        let interrupted = false;
        let failed_attempts = 0;
        let opened_at = null;
        // Whether the subprotocol is offered; whether any websocket opened.
        let offers = true;
        let is_known = false;
        // Attempts in a row that never opened; whether this one is a stream.
        let misses = 0;
        let streams = false;
        let is_blocked = false;
        let not_before = 0;
        // What was seen of a stream, for `since`.
        let position = '';

        return {
            start: function () {
                attempt();
                for_each_window_event('addEventListener');
            },
            send: function (data) { socket.send(data); },
            close: close,
            abandon: abandon,
            streams: function () { return streams; },
            get_transport: function () { return streams ? 'event-stream' : 'websocket'; },
            get_state: get_state,
            start_timer: start_timer,
            stop_timer: stop_timer
        };

        function get_state() {
            return socket === null ? CLOSED : socket.readyState;
        }

        function close(code, reason) {
            finish();
            if (socket !== null) {
                socket.close(code || NORMAL_CLOSURE, reason);
            }
        }

        function finish() {
            wanted = false;
            stop_timer();
            for_each_window_event('removeEventListener');
        }

        function attempt() {
            streams = !is_known && typeof EventSource === 'function' && on.open_stream
                && (is_blocked || misses > 1 && !streams);
            open();
            on.connecting();
        }

        /** Throws for a malformed or forbidden URI. */
        function open() {
            opened_at = null;
            const address = with_query(
                with_query(uri, 'since', position), 'ticket', on.ticket);
            const opening = streams ? on.open_stream(address, {gap: on.gap, position: seen})
                : offers ? new WebSocket(address, [SUBPROTOCOL]) : new WebSocket(address);
            socket = opening;
            socket.onopen = streams ? stream_opened
                : function () { opened(opening.protocol === SUBPROTOCOL); };
            socket.onmessage = function (event) { on.received(event.data); };
            socket.onclose = refused;
            start_timer(abandon.bind(null, 'no answer to the handshake'), CONNECT_TIMEOUT_MS);
        }

        function opened(is_session) {
            is_known = true;
            offers = offers && is_session;
            position = '';
            welcome(is_session);
        }

        function welcome(is_session) {
            stop_timer();
            opened_at = Date.now();
            misses = 0;
            on.opened(is_session);
        }

        /** Try a websocket once more: perhaps the whole server was away before. */
        function stream_opened() {
            if (is_blocked) {
                welcome(false);
                return;
            }
            is_blocked = true;
            streams = false;
            drop_socket();
            if (!reopened()) {
                ended(abnormal_closure('the browser refused to connect'));
            }
        }

        function seen(last_event_id) {
            position = last_event_id || position;
        }

        function reopened() {
            try {
                open();
                return true;
            } catch (error) {
                report(error);
                return false;
            }
        }

        function abandon(reason, delay_ms) {
            not_before = Date.now() + (delay_ms || 0);
            drop_socket();
            ended(abnormal_closure(reason));
        }

        /** Try without the subprotocol: browsers insist on it when it is offered. */
        function refused(event) {
            if (on.gap && !is_known && wanted && !streams) {
                offers = !offers;
                streams = offers && is_blocked;
                if ((!offers || streams) && reopened()) {
                    return;
                }
            }
            ended(event);
        }

        function ended(event) {
            stop_timer();
            socket = null;
            if (opened_at === null) {
                misses += 1;
                is_blocked = is_blocked && !streams;
            }
            if (wanted && !comes_back(event.code)) {
                finish();
            } else if (wanted) {
                wait();
            }
            // Last, so that the callback may call `close()`.
            on.ended(event, !wanted);
        }

        function wait() {
            if (opened_at !== null && Date.now() - opened_at >= STABLE_AFTER_MS) {
                failed_attempts = 0;
            }
            start_timer(reconnect,
                Math.max(reconnection_delay(failed_attempts), not_before - Date.now()));
            failed_attempts += 1;
        }

        function reconnect() {
            try {
                attempt();
            } catch (error) {
                report(error);
                ended(abnormal_closure('the browser refused to connect'));
            }
        }

        /** Some browsers keep no page with a websocket in the back/forward cache. */
        function suspend() {
            suspended = true;
            stop_timer();
            if (socket !== null) {
                interrupted = true;
                drop_socket();
            }
        }

        /** `pageshow` also ends each page's loading. */
        function resume() {
            if (!suspended) {
                return;
            }
            suspended = false;
            failed_attempts = 0;
            if (interrupted) {
                interrupted = false;
                on.ended(abnormal_closure('the page was left'), !wanted);
            }
            if (wanted) {
                reconnect();
            }
        }

        /** Do not sit out a long delay once the network is back. */
        function hurry() {
            if (socket === null && !suspended) {
                failed_attempts = 0;
                wait();
            }
        }

        function drop_socket() {
            const dropped = socket;
            socket = null;
            dropped.onopen = dropped.onmessage = dropped.onclose = null;
            dropped.close();
        }

        function start_timer(callback, delay_ms) {
            stop_timer();
            timer = setTimeout(callback, delay_ms);
        }

        function stop_timer() {
            clearTimeout(timer);
            timer = null;
        }

        function for_each_window_event(method) {
            if (typeof window !== 'undefined' && typeof window[method] === 'function') {
                Object.keys(window_events).forEach(function (name) {
                    window[method](name, window_events[name]);
                });
            }
        }
    }

    function make_session(link, on) {
        let last_id = 0;
        let calls = {};
        let heard_at = 0;
        let ping_ms = 0;
        // `is_open`: connect is answered, or needs no answer.
        const session = {
            is_open: false, begin: begin, received: received, ended: ended, call: send_call,
            send: send, get_state: get_state, offline: offline
        };
        return session;

        function get_state() {
            const state = link.get_state();
            return state === OPEN && !session.is_open ? CONNECTING : state;
        }

        function send(command) {
            link.send(JSON.stringify(command));
        }

        function send_call(method, request, done) {
            const command = {id: last_id += 1};
            command[method] = request;
            calls[command.id] = function (reply) {
                done(reply.error || null, reply[method] || {});
            };
            send(command);
        }

        function begin(request) {
            calls = {};
            heard_at = Date.now();
            link.start_timer(link.abandon.bind(null, 'no answer to connect'), CONNECT_TIMEOUT_MS);
            send_call('connect', request, function (error, reply) {
                link.stop_timer();
                if (error === null) {
                    session.is_open = true;
                    ping_ms = (reply.ping || 0) * 1000;
                    watch();
                }
                on.connected(error, reply);
            });
        }

        function watch() {
            if (ping_ms > 0) {
                const silent_ms = Date.now() - heard_at;
                if (silent_ms > ping_ms + PING_DELAY_MS) {
                    link.abandon('no ping');
                } else {
                    link.start_timer(watch, ping_ms + PING_DELAY_MS - silent_ms + 1);
                }
            }
        }

        function offline() {
            if (ping_ms > 0) {
                link.start_timer(link.abandon.bind(null, 'no network'), PING_DELAY_MS);
                send_call('ping', {}, watch);
            }
        }

        function received(frame) {
            heard_at = Date.now();
            frame.split('\n').forEach(function (line) {
                const reply = line ? JSON.parse(line) : null;
                if (reply === null) {
                    return;
                }
                if (reply.push) {
                    on.pushed(reply.push);
                } else if (reply.id) {
                    const done = calls[reply.id];
                    delete calls[reply.id];
                    if (done) {
                        done(reply);
                    }
                } else if (link.get_state() === OPEN) {
                    // The server's ping.
                    link.send('{}');
                }
            });
        }

        function ended() {
            session.is_open = false;
            ping_ms = 0;
            calls = {};
        }
    }

    function note_reply(positions, channel, reply) {
        if (reply.recoverable) {
            positions[channel] = {epoch: reply.epoch, offset: reply.offset || 0};
        } else {
            delete positions[channel];
        }
    }

    function note_publication(positions, channel, publication) {
        if (publication.offset && positions[channel]) {
            positions[channel].offset = publication.offset;
        }
    }

    function recovering(position) {
        return Object.assign({recover: true}, position);
    }

    function gap_in(channel, reply) {
        if (!reply.was_recovering || reply.recovered) {
            return null;
        }
        return {channel: channel, epoch: reply.epoch, offset: reply.offset || 0};
    }

    function WS4Redis(options) {
        if (!(this instanceof WS4Redis)) {
            return new WS4Redis(options);
        }
        const settings = validated(options, OPTIONS, CALLBACKS);
        const positions = {};
        const echoes = /[?&]echo(&|=|$)/i.test(settings.uri);
        // What was sent and may come back with what was missed, where no echo is wanted.
        let own = [];
        let is_session = false;
        let unanswered_heartbeats = 0;
        let sending = Promise.resolve();
        const link = make_link(settings.uri, {
            open_stream: make_stream,
            connecting: function () { tell('connecting'); },
            opened: opened,
            received: received,
            ended: ended,
            offline: function () { session.offline(); },
            gap: function (info) { tell('gap', [info]); }
        });
        const session = make_session(link, {connected: session_connected, pushed: pushed});
        const get_state = session.get_state;

        this.send_message = send_message;
        this.close = function () { link.close(); };
        this.get_state = get_state;
        this.get_transport = link.get_transport;
        this.is_connecting = function () { return get_state() === CONNECTING; };
        this.is_connected = function () { return get_state() === OPEN; };
        this.is_closing = function () { return get_state() === CLOSING; };
        this.is_closed = function () { return get_state() === CLOSED; };

        link.start();

        function tell(name, args) {
            call(options, name, args);
        }

        /** Nothing is queued, so nothing is lost without the caller's knowledge. */
        function send_message(data) {
            if (get_state() !== OPEN) {
                throw failure('not sent, the websocket is ' + STATE_NAMES[get_state()],
                    {name: 'InvalidStateError'});
            }
            if (link.streams()) {
                throw failure('not sent, an event stream cannot send, and websockets are blocked',
                    {name: 'NotSupportedError'});
            }
            if (!is_session) {
                link.send(data);
            } else if (typeof data === 'string') {
                send_in_session(data);
            } else {
                // A blob is read first; what follows waits for it.
                const bytes = data instanceof Blob ? data.arrayBuffer() : data.buffer || data;
                const view = ArrayBuffer.isView(data) ? data : null;
                sending = sending.then(function () { return bytes; }).then(function (buffer) {
                    send_in_session(to_data(view === null
                        ? new Uint8Array(buffer)
                        : new Uint8Array(buffer, view.byteOffset, view.byteLength)));
                }).catch(report);
            }
        }

        function send_in_session(data) {
            if (!echoes) {
                own.push(JSON.stringify(data));
                own = own.slice(-MAX_QUEUE);
            }
            session.send({send: {data: data}});
        }

        function ended(event) {
            session.ended();
            tell('disconnected', [event]);
        }

        function opened(speaks) {
            is_session = speaks;
            if (!is_session) {
                unanswered_heartbeats = 0;
                if (settings.heartbeat_msg !== null && !link.streams()) {
                    link.start_timer(beat, HEARTBEAT_INTERVAL_MS);
                }
                session.is_open = true;
                tell('connected');
                return;
            }
            const subs = {};
            Object.keys(positions).forEach(function (channel) {
                subs[channel] = recovering(positions[channel]);
            });
            session.begin({subs: subs, name: 'ws4redis'});
        }

        function received(data) {
            if (is_session) {
                session.received(data);
                return;
            }
            // The server sends its heartbeat to idle websockets only.
            unanswered_heartbeats = 0;
            if (settings.heartbeat_msg === null || data !== settings.heartbeat_msg) {
                tell('receive_message', [data]);
            }
        }

        function beat() {
            if (unanswered_heartbeats > MAX_UNANSWERED_HEARTBEATS) {
                link.abandon('too many unanswered heartbeats');
                return;
            }
            unanswered_heartbeats += 1;
            link.send(settings.heartbeat_msg);
            link.start_timer(beat, HEARTBEAT_INTERVAL_MS);
        }

        function session_connected(error, reply) {
            if (error !== null) {
                link.abandon(error.message);
                return;
            }
            tell('connected');
            const subs = reply.subs || {};
            Object.keys(subs).forEach(function (channel) { joined(channel, subs[channel]); });
        }

        function joined(channel, reply) {
            note_reply(positions, channel, reply);
            const gap = gap_in(channel, reply);
            if (gap !== null) {
                tell('gap', [gap]);
            }
            (reply.publications || []).forEach(function (publication) {
                const place = reply.recovered ? own.indexOf(JSON.stringify(publication.data)) : -1;
                if (place === -1) {
                    publish(channel, publication);
                } else {
                    own.splice(place, 1);
                    note_publication(positions, channel, publication);
                }
            });
        }

        function pushed(push) {
            if (push.pub) {
                publish(push.channel, push.pub);
            } else if (push.subscribe) {
                joined(push.channel, push.subscribe);
            }
        }

        function publish(channel, publication) {
            note_publication(positions, channel, publication);
            tell('receive_message', [from_data(publication.data)]);
        }
    }

    function connect(options) {
        const settings = validated(options, CLIENT_OPTIONS, CLIENT_CALLBACKS);
        const max_queue = settings.max_queue === undefined ? MAX_QUEUE : settings.max_queue;
        const subscriptions = {};
        const positions = {};
        let refresh_timer = null;
        let token = settings.token || '';
        const get_token = settings.get_token ? settings.get_token.bind(options)
            : settings.token_url && ask_for_token.bind(null, settings.token_url);
        // Commands with a promise, in their order; those in front may be under way.
        let queue = [];
        const on = {
            connecting: function () { call(options, 'connecting'); },
            opened: opened,
            received: function (data) { session.received(data); },
            ended: ended,
            offline: function () { session.offline(); },
            open_stream: WS4Redis.emulate
        };
        const link = make_link(settings.uri, on);
        const session = make_session(link, {connected: connected, pushed: pushed});

        link.start();
        return {
            subscribe: subscribe,
            publish: publish,
            rpc: function (method, data) {
                return enqueue('rpc', {method: method, data: data}, false).then(function (reply) {
                    return reply.data;
                });
            },
            presence: function (channel) {
                return enqueue('presence', {channel: channel}, true).then(function (reply) {
                    return reply.presence || {};
                });
            },
            history: function (channel, request) {
                return enqueue('history', Object.assign({channel: channel}, request), true);
            },
            close: function () { link.close(); },
            get_state: session.get_state,
            get_transport: link.get_transport
        };

        function opened() {
            if (token || !get_token) {
                begin();
                return;
            }
            fetch_token(begin, function (error) {
                // Nobody is logged in.
                if (error.code === 403) {
                    link.close(4500, error.message);
                } else {
                    link.abandon(error.message, error.delay_ms);
                }
            });
        }

        function fetch_token(done, failed) {
            const state = link.get_state();
            Promise.resolve().then(get_token).then(function (fetched) {
                token = fetched || '';
                if (state === OPEN && link.get_state() === OPEN) {
                    done();
                }
            }).catch(failed);
        }

        function begin() {
            session.begin({
                token: token, data: settings.data || {ticket: true}, name: 'ws4redis'
            });
        }

        function connected(error, reply) {
            if (error !== null && error.code === TOKEN_EXPIRED && get_token) {
                token = '';
                opened();
            } else if (error !== null && error.temporary) {
                link.abandon(error.message);
            } else if (error !== null) {
                link.close(4500, error.message);
            } else {
                keep_token(reply);
                on.ticket = (reply.data || {}).ticket;
                call(options, 'connected', [reply]);
                Object.keys(subscriptions).forEach(send_subscribe);
                queue.forEach(send_queued);
            }
        }

        /** Show another token before the present one ends. */
        function keep_token(reply) {
            clearTimeout(refresh_timer);
            if (reply.expires && get_token) {
                refresh_timer = setTimeout(function () {
                    fetch_token(function () {
                        session.call('refresh', {token: token}, function (error, refreshed) {
                            if (error === null) {
                                keep_token(refreshed);
                            }
                        });
                    }, report);
                }, reply.ttl * 1000);
            }
        }

        function ended(event, is_over) {
            session.ended();
            clearTimeout(refresh_timer);
            const stays = [];
            queue.forEach(function (item) {
                // What is done once in effect, or changes nothing, is simply sent again.
                if (is_over || item.is_sent && !item.is_repeatable) {
                    item.reject(failure('the connection is closed', {code: event.code}));
                } else {
                    item.is_sent = false;
                    stays.push(item);
                }
            });
            queue = stays;
            call(options, 'disconnected', [event]);
        }

        function subscribe(channel, handlers) {
            if (subscriptions[channel]) {
                throw new Error('WS4Redis: ' + channel + ' is subscribed to already');
            }
            const subscription = subscriptions[channel] = {handlers: handlers || {}};
            if (session.is_open) {
                send_subscribe(channel);
            }
            return {
                channel: channel,
                publish: function (data) { return publish(channel, data); },
                unsubscribe: function () {
                    if (subscriptions[channel] === subscription) {
                        forget(channel);
                        if (session.is_open) {
                            session.call('unsubscribe', {channel: channel}, function () {});
                        }
                    }
                }
            };
        }

        function forget(channel) {
            delete subscriptions[channel];
            delete positions[channel];
        }

        function send_subscribe(channel) {
            const subscription = subscriptions[channel];
            const handlers = subscription.handlers;
            const since = positions[channel] || handlers.since;
            const request = Object.assign(
                {channel: channel, join_leave: Boolean(handlers.joined || handlers.left)},
                handlers.token ? {token: handlers.token} : {},
                !since ? {} : since.epoch ? recovering(since) : {data: {since: since}}
            );
            session.call('subscribe', request, function (error, reply) {
                if (subscriptions[channel] !== subscription) {
                    return;
                }
                if (error === null) {
                    joined(channel, subscription, reply);
                } else if (error.temporary || error.code === INTERNAL_ERROR) {
                    again_later(channel, subscription);
                } else {
                    forget(channel);
                    call(handlers, 'refused', [error]);
                }
            });
        }

        function again_later(channel, subscription) {
            setTimeout(function () {
                if (subscriptions[channel] === subscription && session.is_open) {
                    send_subscribe(channel);
                }
            }, reconnection_delay(0));
        }

        function joined(channel, subscription, reply) {
            const handlers = subscription.handlers;
            note_reply(positions, channel, reply);
            call(handlers, 'subscribed', [reply]);
            const gap = gap_in(channel, reply);
            if (gap !== null) {
                call(handlers, 'gap', [gap]);
            }
            (reply.publications || []).forEach(function (publication) {
                receive(channel, subscription, publication);
            });
        }

        function receive(channel, subscription, publication) {
            note_publication(positions, channel, publication);
            call(subscription.handlers, 'received', [publication.data, publication]);
        }

        function pushed(push) {
            const subscription = subscriptions[push.channel];
            if (push.message) {
                call(options, 'message', [push.message.data]);
            } else if (push.ticket) {
                on.ticket = push.ticket;
            } else if (subscription && push.pub) {
                receive(push.channel, subscription, push.pub);
            } else if (subscription && push.join) {
                call(subscription.handlers, 'joined', [push.join.info]);
            } else if (subscription && push.leave) {
                call(subscription.handlers, 'left', [push.leave.info]);
            } else if (subscription && push.unsubscribe) {
                if (push.unsubscribe.code >= 2500) {
                    send_subscribe(push.channel);
                } else {
                    forget(push.channel);
                    call(subscription.handlers, 'refused', [push.unsubscribe]);
                }
            }
        }

        function publish(channel, data) {
            const request = {channel: channel, data: data, idempotency_key: random_name()};
            return enqueue('publish', request, true).then(function () {});
        }

        function enqueue(method, request, is_repeatable) {
            return new Promise(function (resolve, reject) {
                if (queue.length >= max_queue) {
                    reject(failure('too much waits to be sent'));
                    return;
                }
                const item = {
                    method: method, request: request, is_repeatable: is_repeatable,
                    is_sent: false, resolve: resolve, reject: reject
                };
                queue.push(item);
                if (session.is_open) {
                    send_queued(item);
                }
            });
        }

        function send_queued(item) {
            item.is_sent = true;
            session.call(item.method, item.request, function (error, reply) {
                queue = queue.filter(function (each) { return each !== item; });
                if (error === null) {
                    item.resolve(reply);
                } else {
                    item.reject(Object.assign(new Error(error.message), {code: error.code}));
                }
            });
        }
    }

    WS4Redis.connect = connect;

    if (typeof module === 'object' && module !== null && module.exports) {
        module.exports = WS4Redis;
    } else {
        self.WS4Redis = WS4Redis;
    }
}());
