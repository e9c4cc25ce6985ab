/**
 * One connection for all tabs of a site, after ws4redis.js:
 *
 *     const page = WS4Redis.share({uri: '/ws/connection/websocket', identity: 'mary'});
 *
 * The connection is in a SharedWorker, which runs this same file. Where there is none, each page
 * has one of its own, as with `WS4Redis.connect()`. A worker that was killed is replaced: pages
 * notice by a lock that it holds as long as it lives, or, where there are no locks (on a site
 * without TLS), since it does not answer them any more.
 */
(function () {
    'use strict';

    const OPTIONS = ['uri', 'token', 'token_url', 'data', 'max_queue'];
    const CALLBACKS = ['connecting', 'connected', 'disconnected', 'message'];
    const HANDLERS = ['gap', 'joined', 'left'];
    const METHODS = ['publish', 'rpc', 'presence', 'history'];

    // A worker whose scripts cannot be loaded says nothing.
    const WORKER_TIMEOUT_MS = 5000;
    // How often a page asks whether its worker lives, where no lock tells it.
    const BEAT_INTERVAL_MS = 10000;
    const MAX_UNANSWERED_BEATS = 2;
    const CLOSED = 3;

    if (typeof SharedWorkerGlobalScope === 'function' && self instanceof SharedWorkerGlobalScope) {
        serve();
    } else {
        // Only while this file runs is it known where it came from.
        const script = document.currentScript;
        WS4Redis.share = share.bind(null, script === null ? '' : script.src);
    }

    function comes_back(code) {
        return !(code >= 3500 && code < 4000 || code >= 4500 && code < 5000);
    }

    function pick(source, names) {
        const result = {};
        names.forEach(function (name) {
            if (source[name] !== undefined && source[name] !== null) {
                result[name] = source[name];
            }
        });
        return result;
    }

    // The page's side

    function share(own_url, options) {
        if (options === null || typeof options !== 'object' || !options.uri) {
            throw new TypeError('WS4Redis: option uri is required');
        }
        if (typeof options.identity !== 'string') {
            throw new TypeError('WS4Redis: option identity must be a string, \'\' for nobody: '
                + 'tabs of different users share no connection');
        }
        const direct_options = Object.assign({}, options);
        delete direct_options.identity;
        delete direct_options.worker;
        delete direct_options.script;
        CALLBACKS.concat('get_token').forEach(function (name) {
            if (typeof options[name] === 'function') {
                // Callbacks are methods of the page's own object.
                direct_options[name] = options[name].bind(options);
            }
        });
        let is_shared = false;
        let target = null;
        let is_closed = false;
        let decided = null;
        const subscriptions = {};
        decide();
        const page = {
            subscribe: subscribe,
            close: function () {
                is_closed = true;
                if (target !== null) {
                    target.close();
                }
            },
            get_state: function () {
                return target === null ? (is_closed ? CLOSED : 0) : target.get_state();
            },
            is_shared: function () { return is_shared; }
        };
        METHODS.forEach(function (name) {
            page[name] = function () {
                const args = arguments;
                return decided.then(function (found) { return found[name].apply(null, args); });
            };
        });
        return page;

        /** Find a worker, or connect without one, and subscribe to what the page has so far. */
        function decide() {
            target = null;
            decided = find_worker(own_url, options).then(function (worker) {
                is_shared = true;
                return make_remote(worker, options, function () {
                    if (!is_closed) {
                        decide();
                    }
                });
            }).catch(function () {
                is_shared = false;
                return WS4Redis.connect(direct_options);
            });
            decided.then(function (found) {
                target = found;
                if (is_closed) {
                    target.close();
                }
                Object.keys(subscriptions).forEach(function (channel) { enter(channel); });
            });
        }

        function enter(channel) {
            const subscription = subscriptions[channel];
            subscription.inner = target.subscribe(channel, subscription.watched);
        }

        function subscribe(channel, handlers) {
            if (subscriptions[channel]) {
                throw new Error('WS4Redis: ' + channel + ' is subscribed to already');
            }
            const watched = watch(handlers || {}, forget);
            const subscription = subscriptions[channel] = {watched: watched, inner: null};
            if (target !== null) {
                enter(channel);
            }
            return {
                channel: channel,
                publish: function (data) { return page.publish(channel, data); },
                unsubscribe: function () {
                    forget();
                    if (subscription.inner !== null) {
                        subscription.inner.unsubscribe();
                    }
                }
            };

            function forget() {
                if (subscriptions[channel] === subscription) {
                    delete subscriptions[channel];
                }
            }
        }
    }

    /**
     * Return the handlers of a subscription, whose `since` follows what the page is told.
     *
     * So whoever subscribes to the channel once more gets what was missed, and nothing twice.
     */
    function watch(handlers, forget) {
        let epoch = '';
        const watched = Object.assign({}, handlers);
        note('subscribed', function (reply) {
            epoch = reply.recoverable ? reply.epoch : '';
            if (epoch && !watched.since) {
                watched.since = {epoch: epoch, offset: reply.offset || 0};
            }
        });
        note('received', function (data, publication) {
            if (epoch && publication.offset) {
                watched.since = {epoch: epoch, offset: publication.offset};
            }
        });
        note('gap', function (gap) {
            watched.since = {epoch: gap.epoch, offset: gap.offset};
        });
        note('refused', forget);
        return watched;

        function note(name, noted) {
            watched[name] = function () {
                noted.apply(null, arguments);
                call(handlers, name, Array.from(arguments));
            };
        }
    }

    /** Return a promise of a worker: its port, and the lock that it holds while it lives. */
    function find_worker(own_url, options) {
        return new Promise(function (resolve, reject) {
            const url = options.worker || own_url;
            if (typeof SharedWorker !== 'function' || options.get_token || !url) {
                throw new Error('no shared worker');
            }
            const worker_url = absolute(url);
            const script = encodeURIComponent(client_url(options, worker_url));
            const worker = new SharedWorker(worker_url + '#' + script, 'ws4redis');
            const timer = setTimeout(reject, WORKER_TIMEOUT_MS);
            worker.onerror = reject;
            worker.port.onmessage = function (event) {
                clearTimeout(timer);
                if (event.data.is_ready) {
                    resolve({port: worker.port, life: event.data.life});
                } else {
                    reject(new Error('ws4redis.js cannot be loaded'));
                }
            };
        });
    }

    function absolute(url) {
        return new URL(String(url), document.baseURI).href;
    }

    /** Return where ws4redis.js is, under whatever name static files have. */
    function client_url(options, worker_url) {
        const tag = document.querySelector('script[src*="/ws4redis."]');
        if (options.script) {
            return absolute(options.script);
        }
        return tag === null ? new URL('ws4redis.js', worker_url).href : tag.src;
    }

    /**
     * Return a connection that is in the worker, with the methods of one of the page's own.
     *
     * `lost` is called when the worker has ended, and with it the connection.
     */
    function make_remote(worker, options, lost) {
        const port = worker.port;
        const handlers = {};
        let calls = {};
        let last = 0;
        let state = 0;
        let unanswered_beats = 0;
        let is_over = false;
        // The server wants this client no more.
        let is_final = false;
        // Whatever this connection waits for ends with it.
        const over = new AbortController();
        const opening = Object.assign(pick(options, OPTIONS),
            {uri: absolute(options.uri).replace(/^http/, 'ws')},
            options.token_url ? {token_url: absolute(options.token_url)} : {});
        const remote = {
            subscribe: subscribe,
            close: function () {
                leave();
                end({code: 1000, reason: '', wasClean: true});
            },
            get_state: function () { return state; }
        };
        METHODS.forEach(function (name) {
            remote[name] = function () {
                const args = Array.from(arguments);
                return new Promise(function (resolve, reject) {
                    if (is_over) {
                        reject(new Error('WS4Redis: the connection is closed'));
                        return;
                    }
                    calls[last += 1] = {resolve: resolve, reject: reject};
                    post({call: name, id: last, args: args});
                });
            };
        });
        port.onmessage = function (event) { take(event.data); };
        window.addEventListener('pagehide', leave, {signal: over.signal});
        window.addEventListener('pageshow', come_back, {signal: over.signal});
        open();
        if (navigator.locks && worker.life) {
            const shared = {mode: 'shared', signal: over.signal};
            navigator.locks.request(worker.life, shared, worker_ended).catch(function () {});
        } else {
            beat();
        }
        return remote;

        /** End this connection; what was asked may have been done, and is not asked again. */
        function end(event) {
            is_over = true;
            over.abort();
            if (state !== CLOSED) {
                state = CLOSED;
                call(options, 'disconnected', [new CloseEvent('close', event)]);
            }
            Object.keys(calls).forEach(function (id) {
                calls[id].reject(new Error('WS4Redis: the connection is closed'));
            });
            calls = {};
        }

        function worker_ended() {
            if (!is_over) {
                end({code: 1006, reason: 'the shared worker has ended', wasClean: false});
                if (!is_final) {
                    lost();
                }
            }
        }

        function beat() {
            if (is_over) {
                return;
            }
            if (unanswered_beats >= MAX_UNANSWERED_BEATS) {
                worker_ended();
                return;
            }
            unanswered_beats += 1;
            post({beat: true});
            setTimeout(beat, BEAT_INTERVAL_MS);
        }

        function post(message) {
            port.postMessage(message);
        }

        function open() {
            post({open: opening, identity: options.identity});
            hold_lock();
        }

        /** Let the worker notice if this page ends without saying so. */
        function hold_lock() {
            if (navigator.locks) {
                const name = 'ws4redis-' + Math.random().toString(36).slice(2);
                navigator.locks.request(name, function () {
                    post({lock: name});
                    return new Promise(function () {});
                });
            }
        }

        function leave() {
            post({leave: true});
        }

        /** The page was in the back/forward cache. */
        function come_back(event) {
            if (event.persisted) {
                post({open: opening, identity: options.identity});
                Object.keys(handlers).forEach(send_subscribe);
            }
        }

        function subscribe(channel, given) {
            const id = last += 1;
            handlers[id] = {channel: channel, given: given};
            send_subscribe(id);
            return {
                unsubscribe: function () {
                    if (handlers[id]) {
                        delete handlers[id];
                        post({unsubscribe: Number(id)});
                    }
                }
            };
        }

        function send_subscribe(id) {
            const subscription = handlers[id];
            post(Object.assign(pick(subscription.given, ['since', 'token']),
                {subscribe: Number(id), channel: subscription.channel}));
        }

        function take(message) {
            if (is_over) {
                return;
            }
            unanswered_beats = 0;
            if (message.state !== undefined) {
                state = message.state;
            }
            if (message.event) {
                const is_end = message.event === 'disconnected';
                const args = is_end ? [new CloseEvent('close', message.args[0])] : message.args;
                is_final = is_end && !comes_back(args[0].code);
                call(options, message.event, args);
            } else if (message.to && handlers[message.to]) {
                const given = handlers[message.to].given;
                if (message.name === 'refused') {
                    delete handlers[message.to];
                }
                call(given, message.name, message.args);
            } else if (message.answer) {
                const waiting = calls[message.answer];
                delete calls[message.answer];
                if (!waiting) {
                    return;
                }
                if (message.error) {
                    waiting.reject(Object.assign(new Error(message.error.message),
                        {code: message.error.code}));
                } else {
                    waiting.resolve(message.result);
                }
            }
        }
    }

    /** Call a callback; what it throws must not keep others from theirs. */
    function call(object, name, args) {
        if (typeof object[name] === 'function') {
            try {
                object[name].apply(object, args);
            } catch (error) {
                self.reportError(error);
            }
        }
    }

    // The worker's side

    function serve() {
        const connections = {};
        let is_ready = false;
        const life = 'ws4redis-worker-' + Math.random().toString(36).slice(2);
        const alive = new Promise(function (resolve) {
            if (!self.navigator.locks) {
                resolve('');
                return;
            }
            self.navigator.locks.request(life, function () {
                resolve(life);
                return new Promise(function () {});
            });
        });
        self.onconnect = function (event) {
            const port = event.ports[0];
            const member = {port: port, connection: null};
            port.onmessage = function (message) { take(member, message.data); };
            alive.then(function (lock) { port.postMessage({is_ready: is_ready, life: lock}); });
        };
        try {
            self.importScripts(decodeURIComponent(self.location.hash.slice(1)));
            is_ready = true;
        } catch (error) {
            // The pages are told, and connect by themselves.
            console.warn(error);
        }

        function take(member, message) {
            if (message.open) {
                leave(member);
                const key = JSON.stringify([message.identity, message.open]);
                member.connection = connections[key] = connections[key]
                    || make_shared(message.open, function () { delete connections[key]; });
                member.connection.enter(member);
            } else if (message.leave) {
                leave(member);
            } else if (message.beat) {
                member.port.postMessage({beat: true});
            } else if (message.lock) {
                self.navigator.locks.request(message.lock, function () { leave(member); });
            } else if (message.call) {
                answer(member, message);
            } else if (member.connection && message.subscribe) {
                member.connection.subscribe(member, message);
            } else if (member.connection && message.unsubscribe) {
                member.connection.unsubscribe(member, message.unsubscribe);
            }
        }

        function leave(member) {
            const connection = member.connection;
            member.connection = null;
            if (connection) {
                connection.leave(member);
            }
        }

        function answer(member, message) {
            const connection = member.connection;
            Promise.resolve().then(function () {
                if (!connection) {
                    throw new Error('WS4Redis: the connection is closed');
                }
                return connection.client[message.call].apply(null, message.args);
            }).then(function (result) {
                member.port.postMessage({answer: message.id, result: result});
            }, function (error) {
                member.port.postMessage({
                    answer: message.id, error: {message: error.message, code: error.code}
                });
            });
        }
    }

    /** Make a connection that tabs enter and leave; `gone` is called when it is of no use more. */
    function make_shared(options, gone) {
        const members = new Set();
        const channels = {};
        let greeting = null;
        const client = WS4Redis.connect(Object.assign({}, options, {
            connecting: function () { tell_all('connecting', []); },
            connected: function (reply) {
                greeting = reply;
                tell_all('connected', [reply]);
            },
            disconnected: function (event) {
                greeting = null;
                if (!comes_back(event.code)) {
                    gone();
                }
                tell_all('disconnected', [pick(event, ['code', 'reason', 'wasClean'])]);
            },
            message: function (data) { tell_all('message', [data]); }
        }));
        return {
            client: client,
            enter: function (member) {
                members.add(member);
                member.port.postMessage({state: client.get_state()});
                if (greeting !== null) {
                    tell(member, 'connected', [greeting]);
                }
            },
            leave: function (member) {
                members.delete(member);
                Object.keys(channels).forEach(function (name) {
                    channels[name].remove(function (each) { return each.member === member; });
                });
                if (members.size === 0) {
                    gone();
                    client.close();
                }
            },
            subscribe: function (member, request) {
                const name = request.channel;
                if (!channels[name]) {
                    channels[name] = make_channel(client, request, function () {
                        delete channels[name];
                    });
                }
                channels[name].add({member: member, id: request.subscribe, since: request.since});
            },
            unsubscribe: function (member, id) {
                Object.keys(channels).forEach(function (name) {
                    channels[name].remove(function (each) {
                        return each.member === member && each.id === id;
                    });
                });
            }
        };

        function tell(member, name, args) {
            member.port.postMessage({state: client.get_state(), event: name, args: args});
        }

        function tell_all(name, args) {
            members.forEach(function (member) { tell(member, name, args); });
        }
    }

    /**
     * Subscribe to a channel for all tabs that want it.
     *
     * The first one gets what the server tells. What a later one has missed since its page was made
     * is read from the history; without one it begins with the latest message, as any newcomer.
     */
    function make_channel(client, request, gone) {
        let readers = [];
        let reply = null;
        let latest = null;
        let offset = 0;
        const handlers = pick(request, ['since', 'token']);
        HANDLERS.forEach(function (name) {
            handlers[name] = function () { tell_all(name, Array.from(arguments)); };
        });
        handlers.received = received;
        handlers.subscribed = subscribed;
        handlers.refused = function (error) {
            gone();
            tell_all('refused', [error]);
        };
        const subscription = client.subscribe(request.channel, handlers);
        return {
            add: function (reader) {
                // What comes while it catches up.
                reader.waiting = readers.length > 0 ? [] : null;
                readers.push(reader);
                if (reply !== null && reader.waiting !== null) {
                    tell(reader, 'subscribed', [reply]);
                    catch_up(reader);
                }
            },
            remove: function (matches) {
                const stay = readers.filter(function (reader) { return !matches(reader); });
                const was_last = stay.length === 0 && readers.length > 0;
                readers = stay;
                if (was_last) {
                    gone();
                    subscription.unsubscribe();
                }
            }
        };

        function tell(reader, name, args) {
            reader.member.port.postMessage({to: reader.id, name: name, args: args});
        }

        function tell_all(name, args) {
            readers.forEach(function (reader) { tell(reader, name, args); });
        }

        function subscribed(told) {
            const is_first = reply === null;
            reply = pick(told, ['recoverable', 'positioned', 'epoch', 'offset', 'recovered',
                'was_recovering']);
            offset = told.offset || 0;
            tell_all('subscribed', [reply]);
            if (is_first) {
                // After what came with the answer.
                Promise.resolve().then(function () {
                    readers.filter(function (reader) { return reader.waiting !== null; })
                        .forEach(catch_up);
                });
            }
        }

        function received(data, publication) {
            latest = publication;
            offset = publication.offset || offset;
            readers.forEach(function (reader) {
                if (reader.waiting === null) {
                    tell(reader, 'received', [data, publication]);
                } else {
                    reader.waiting.push(publication);
                }
            });
        }

        function catch_up(reader) {
            if (!reader.since || !reply.recoverable) {
                reader.waiting = latest === null ? [] : [latest];
                go_on(reader, 0);
                return;
            }
            const seen = position_in(reader.since, reply.epoch);
            if (seen === null) {
                tell_gap(reader);
            } else {
                read(reader, seen);
            }
        }

        /** Read a page of the history after an offset, and then the next one. */
        function read(reader, seen) {
            const since = {epoch: reply.epoch, offset: seen};
            client.history(request.channel, {since: since, limit: -1}).then(function (page) {
                const publications = page.publications || [];
                publications.forEach(function (publication) {
                    tell(reader, 'received', [publication.data, publication]);
                    seen = publication.offset;
                });
                if (publications.length > 0 && seen < page.offset) {
                    read(reader, seen);
                } else {
                    go_on(reader, seen);
                }
            }).catch(function () { tell_gap(reader); });
        }

        function tell_gap(reader) {
            tell(reader, 'gap', [{channel: request.channel, epoch: reply.epoch, offset: offset}]);
            go_on(reader, 0);
        }

        /** Let a reader have what came meanwhile, and from now on what the others get. */
        function go_on(reader, seen) {
            const waiting = reader.waiting;
            reader.waiting = null;
            waiting.forEach(function (publication) {
                if (!publication.offset || publication.offset > seen) {
                    tell(reader, 'received', [publication.data, publication]);
                }
            });
        }
    }

    /** Return the offset that a page's position has in a numbering; null if it has none. */
    function position_in(since, epoch) {
        if (since.epoch) {
            return since.epoch === epoch ? since.offset : null;
        }
        // digest.epoch.offset.tag~…, see ws4redis/broker/tokens.py; no two channels share an epoch.
        const found = since.split('~').map(function (item) { return item.split('.'); })
            .find(function (parts) { return parts[1] === epoch; });
        return found ? Number(found[2]) : null;
    }
}());
