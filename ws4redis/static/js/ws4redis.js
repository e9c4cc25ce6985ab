/**
 * WS4Redis: the browser's end of a websocket to ws4redis.
 *
 *     const chat = new WS4Redis({
 *         uri: '/ws/chat?subscribe-broadcast&publish-broadcast&echo',
 *         receive_message: function (text) { ... }
 *     });
 *     chat.send_message('Hello');
 *
 * It works from a <script> tag and as a CommonJS module, with or without `new`, and needs no other
 * library. A second argument, in which older releases wanted jQuery, is accepted and not looked at.
 *
 * At any time exactly one of these holds, and at most one timer runs:
 *
 *   attached   `socket` is a websocket that is connecting (timer: give up), open (timer: next
 *              heartbeat, if there are any) or closing (no timer)
 *   waiting    no socket; timer: the next attempt
 *   suspended  no socket, no timer: the page lies in the browser's back/forward cache
 *   closed     no socket, no timer, no event listener; `close()` was called, there is no way back
 */
(function () {
    'use strict';

    // The values of WebSocket.readyState, which `get_state()` returns.
    const CONNECTING = 0;
    const OPEN = 1;
    const CLOSING = 2;
    const CLOSED = 3;
    const STATE_NAMES = ['connecting', 'open', 'closing', 'closed'];

    const CALLBACKS = ['connecting', 'connected', 'receive_message', 'disconnected'];
    const OPTIONS = CALLBACKS.concat('uri', 'heartbeat_msg');

    const HEARTBEAT_INTERVAL_MS = 5000;
    const MAX_UNANSWERED_HEARTBEATS = 3;

    // Browsers leave a handshake that nobody answers hanging for minutes.
    const CONNECT_TIMEOUT_MS = 30000;

    // The longest delay before the first reconnection; it doubles with every further attempt.
    const FIRST_DELAY_MS = 2000;
    const LONGEST_DELAY_MS = 30000;
    const SHORTEST_PART_OF_DELAY = 0.25;

    // A connection that ends sooner does not reset the delay, else a server that accepts
    // websockets only to close them would be hammered.
    const STABLE_AFTER_MS = 5000;

    const NORMAL_CLOSURE = 1000;
    const ABNORMAL_CLOSURE = 1006;

    /**
     * Return how long to wait before an attempt, in milliseconds.
     *
     * It is random from the first reconnection on, so that the websockets of a server that was
     * restarted do not all come back at the same moment.
     */
    function reconnection_delay(failed_attempts) {
        const longest = Math.min(FIRST_DELAY_MS * Math.pow(2, failed_attempts), LONGEST_DELAY_MS);
        const part = SHORTEST_PART_OF_DELAY + (1 - SHORTEST_PART_OF_DELAY) * Math.random();
        return longest * part;
    }

    /**
     * Return the address of a websocket in full: `/ws/chat` on https://example.com is
     * wss://example.com/ws/chat.
     *
     * Browsers did not resolve addresses themselves before 2024.
     */
    function absolute(uri) {
        const here = typeof self === 'undefined' ? undefined : self.location;
        if (/^wss?:/i.test(uri) || here === undefined || typeof URL !== 'function') {
            return uri;
        }
        const base = typeof document === 'undefined' ? here.href : document.baseURI;
        // An address that cannot be resolved throws here as it would in the browser.
        return new URL(uri, base).href.replace(/^http/, 'ws');
    }

    /** Return the options in their final form, or throw an Error that names what is wrong. */
    function validated(options) {
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
        const result = {
            uri: absolute(String(options.uri)),
            heartbeat_msg: options.heartbeat_msg || null
        };
        CALLBACKS.forEach(function (name) {
            const callback = options[name];
            if (callback !== undefined && callback !== null && typeof callback !== 'function') {
                throw new TypeError('WS4Redis: option ' + name + ' must be a function');
            }
            result[name] = callback || null;
        });
        Object.keys(options).forEach(function (name) {
            if (OPTIONS.indexOf(name) === -1) {
                console.warn('WS4Redis: there is no option ' + name);
            }
        });
        return result;
    }

    /** Make the event that the browser owes us for a websocket that we gave up. */
    function abnormal_closure(reason) {
        const details = {code: ABNORMAL_CLOSURE, reason: reason, wasClean: false};
        if (typeof CloseEvent === 'function') {
            return new CloseEvent('close', details);
        }
        return Object.assign({type: 'close'}, details);
    }

    /** Show an error as if nobody had caught it: in the console, and to window.onerror. */
    function report(error) {
        if (typeof reportError === 'function') {
            reportError(error);
        } else {
            console.error(error);
        }
    }

    /**
     * Open a websocket and keep it open until `close()` is called.
     *
     * `options.uri` is the only option that must be given, the callbacks `connecting()`,
     * `connected()`, `receive_message(data)`, `disconnected(event)` and the string `heartbeat_msg`
     * may be. Throws an Error when an option is missing or of a wrong type, and whatever the
     * browser throws for an URI that it refuses.
     */
    function WS4Redis(options) {
        if (!(this instanceof WS4Redis)) {
            return new WS4Redis(options);
        }
        const settings = validated(options);
        const window_events = {pagehide: suspend, pageshow: resume, online: hurry};
        let socket = null;
        let timer = null;
        let wanted = true;
        let suspended = false;
        let interrupted = false;
        let failed_attempts = 0;
        let opened_at = null;
        let unanswered_heartbeats = 0;

        this.send_message = send_message;
        this.close = close;
        this.get_state = get_state;
        this.is_connecting = function () { return get_state() === CONNECTING; };
        this.is_connected = function () { return get_state() === OPEN; };
        this.is_closing = function () { return get_state() === CLOSING; };
        this.is_closed = function () { return get_state() === CLOSED; };

        connect();
        for_each_window_event('addEventListener');

        // Methods

        function get_state() {
            return socket === null ? CLOSED : socket.readyState;
        }

        /**
         * Send a string, Blob, ArrayBuffer or view of one.
         *
         * Throws an Error unless the websocket is open: nothing is queued, so nothing is lost
         * without the caller's knowledge.
         */
        function send_message(data) {
            if (get_state() !== OPEN) {
                const state = STATE_NAMES[get_state()];
                const error = new Error('WS4Redis: not sent, the websocket is ' + state);
                error.name = 'InvalidStateError';
                throw error;
            }
            socket.send(data);
        }

        /** Close for good. `disconnected` is called once more if a websocket was there. */
        function close() {
            wanted = false;
            stop_timer();
            for_each_window_event('removeEventListener');
            if (socket !== null) {
                socket.close(NORMAL_CLOSURE);
            }
        }

        // Transitions

        function connect() {
            opened_at = null;
            // Throws for an URI that is malformed or forbidden on this page.
            socket = new WebSocket(settings.uri);
            socket.onopen = opened;
            socket.onmessage = received;
            // No `onerror`: an error is always followed by a close event, which says more.
            socket.onclose = ended;
            start_timer(function () { abandon('no answer to the handshake'); }, CONNECT_TIMEOUT_MS);
            call('connecting');
        }

        function opened() {
            stop_timer();
            opened_at = Date.now();
            unanswered_heartbeats = 0;
            if (settings.heartbeat_msg !== null) {
                start_timer(beat, HEARTBEAT_INTERVAL_MS);
            }
            call('connected');
        }

        function received(event) {
            // The server sends its heartbeat to idle websockets only: any message shows that it
            // is alive.
            unanswered_heartbeats = 0;
            if (settings.heartbeat_msg === null || event.data !== settings.heartbeat_msg) {
                call('receive_message', event.data);
            }
        }

        function beat() {
            if (unanswered_heartbeats > MAX_UNANSWERED_HEARTBEATS) {
                abandon('too many unanswered heartbeats');
                return;
            }
            unanswered_heartbeats += 1;
            socket.send(settings.heartbeat_msg);
            start_timer(beat, HEARTBEAT_INTERVAL_MS);
        }

        /** Take leave of a websocket without waiting for a peer that is most likely gone. */
        function abandon(reason) {
            drop_socket();
            ended(abnormal_closure(reason));
        }

        function ended(event) {
            stop_timer();
            socket = null;
            if (wanted) {
                wait();
            }
            // Last, so that whatever the callback does, `close()` included, finds a proper state.
            call('disconnected', event);
        }

        function wait() {
            if (opened_at !== null && Date.now() - opened_at >= STABLE_AFTER_MS) {
                failed_attempts = 0;
            }
            start_timer(reconnect, reconnection_delay(failed_attempts));
            failed_attempts += 1;
        }

        function reconnect() {
            try {
                connect();
            } catch (error) {
                // It did not throw the first time, so it need not throw the next time.
                report(error);
                ended(abnormal_closure('the browser refused to connect'));
            }
        }

        // Page lifecycle

        /**
         * Close when the user leaves the page.
         *
         * A page with an open websocket is not put into the back/forward cache by some browsers,
         * and has a dead one when it comes out of it in others.
         */
        function suspend() {
            suspended = true;
            stop_timer();
            if (socket !== null) {
                interrupted = true;
                drop_socket();
            }
        }

        /** Connect again when the user comes back. `pageshow` also ends each page's loading. */
        function resume() {
            if (!suspended) {
                return;
            }
            suspended = false;
            failed_attempts = 0;
            if (interrupted) {
                interrupted = false;
                call('disconnected', abnormal_closure('the page was left'));
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

        // Parts

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

        /** Call one of the user's callbacks; what it throws must not end the reconnecting. */
        function call(name, argument) {
            if (settings[name] === null) {
                return;
            }
            try {
                if (arguments.length === 1) {
                    settings[name].call(options);
                } else {
                    settings[name].call(options, argument);
                }
            } catch (error) {
                report(error);
            }
        }
    }

    if (typeof module === 'object' && module !== null && module.exports) {
        module.exports = WS4Redis;
    } else {
        // Neither a page nor a web worker lacks it.
        self.WS4Redis = WS4Redis;
    }
}());
