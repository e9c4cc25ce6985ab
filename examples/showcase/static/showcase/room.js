/**
 * A room: messages with their history, who is here, who is typing, what is unread elsewhere.
 *
 * All of it on one websocket. On the page of the event stream messages come by EventSource
 * instead, and go by a POST.
 */
(function () {
    'use strict';

    const TYPING_EVERY_MS = 2000;
    const TYPING_FOR_MS = 4000;
    const READ_KEY = 'showcase.read.';

    const page = document.getElementById('content');
    const form = document.getElementById('composer');
    const text_field = document.getElementById('text_message');
    const typing_line = document.getElementById('typing');
    const room = page.dataset.room;
    const own_name = page.dataset.name;
    const title = document.title;

    const messages = window.make_message_list(own_name);
    const members = new Map();
    const typists = new Map();
    let unseen = 0;
    let told_typing_at = -TYPING_EVERY_MS;

    // Messages

    function receive(data) {
        const message = messages.read(data);
        stop_typing(message.sender);
        if (messages.confirm(message.id)) {
            return;
        }
        messages.show(message);
        if (document.hidden) {
            unseen += 1;
            document.title = '(' + unseen + ') ' + title;
        }
    }

    function show_gap() {
        messages.show_note('Messages are missing here: they are not kept any more.', 'gap');
    }

    document.addEventListener('visibilitychange', function () {
        if (!document.hidden) {
            unseen = 0;
            document.title = title;
        }
    });

    // Members

    function show_members() {
        const names = Array.from(members.values()).sort();
        const list = document.getElementById('members');
        list.replaceChildren.apply(list, names.map(function (name) {
            const item = document.createElement('li');
            item.textContent = name === own_name ? name + ' (you)' : name;
            return item;
        }));
        window.showcase.set_text('number', names.length);
    }

    function add_member(client) {
        members.set(client.client, client.conn_info && client.conn_info.name || client.user
            || 'Guest');
    }

    // Typing

    function show_typing() {
        const names = Array.from(typists.keys());
        typing_line.textContent = names.length === 0 ? ''
            : names.length > 2 ? 'Several people are typing…'
                : names.join(' and ') + (names.length === 1 ? ' is' : ' are') + ' typing…';
    }

    function start_typing(name) {
        if (typeof name === 'string' && name !== own_name) {
            window.clearTimeout(typists.get(name));
            typists.set(name, window.setTimeout(stop_typing.bind(null, name), TYPING_FOR_MS));
            show_typing();
        }
    }

    function stop_typing(name) {
        window.clearTimeout(typists.get(name));
        if (typists.delete(name)) {
            show_typing();
        }
    }

    // Unread: the newest position of a room, less the one that was read last.

    function position_of(name) {
        try {
            return JSON.parse(window.localStorage.getItem(READ_KEY + name));
        } catch (error) {
            // Storage may be forbidden: then nothing counts as unread.
            return null;
        }
    }

    function mark_read(name, epoch, offset) {
        try {
            window.localStorage.setItem(READ_KEY + name, JSON.stringify([epoch, offset]));
        } catch (error) {
            // As above.
        }
    }

    function watch(link) {
        const name = link.dataset.room;
        const badge = link.querySelector('.unread');
        let epoch = null;
        function show(offset) {
            const read = position_of(name);
            if (read === null || read[0] !== epoch) {
                mark_read(name, epoch, offset);
                return;
            }
            const count = offset - read[1];
            badge.textContent = count > 99 ? '99+' : count;
            badge.hidden = count < 1;
            link.setAttribute('aria-label',
                count < 1 ? link.firstChild.data : link.firstChild.data + count + ' unread');
        }
        return {
            subscribed: function (reply) {
                epoch = reply.epoch;
                show(reply.offset || 0);
            },
            received: function (data, publication) {
                // The kept message, which newcomers get, has no offset: it is in the reply.
                if (publication.offset) {
                    show(publication.offset);
                }
            }
        };
    }

    // The two ways to receive

    function open_websocket() {
        let epoch = null;
        const connection = WS4Redis.connect({
            uri: page.dataset.clientUri,
            token: page.dataset.token,
            connecting: function () { window.showcase.show_connection('connecting'); },
            connected: function () { window.showcase.show_connection('connected'); },
            disconnected: function (event) {
                window.showcase.show_connection('closed',
                    event.code >= 3500 && event.code < 4000 ? 'Ended: reload the page' : undefined);
            }
        });
        const channel = connection.subscribe('room/' + room, {
            since: page.dataset.since || undefined,
            subscribed: function (reply) {
                epoch = reply.epoch;
                mark_read(room, epoch, reply.offset || 0);
            },
            received: function (data, publication) {
                receive(data);
                if (publication.offset) {
                    mark_read(room, epoch, publication.offset);
                }
            },
            gap: show_gap,
            refused: function (error) {
                messages.show_error('You may not read this room: ' + error.message);
            }
        });
        const here = connection.subscribe('here/' + room, {
            subscribed: function () {
                connection.presence('here/' + room).then(function (clients) {
                    members.clear();
                    Object.values(clients).forEach(add_member);
                    show_members();
                }).catch(function () { /* It is asked for again after a reconnection. */ });
            },
            received: function (data) { start_typing(data && data.name); },
            joined: function (client) {
                add_member(client);
                show_members();
            },
            left: function (client) {
                members.delete(client.client);
                show_members();
            }
        });
        page.querySelectorAll('.rooms a:not([aria-current])').forEach(function (link) {
            connection.subscribe('room/' + link.dataset.room, watch(link));
        });
        text_field.addEventListener('input', function () {
            const is_due = performance.now() - told_typing_at > TYPING_EVERY_MS;
            if (is_due && connection.get_state() === WebSocket.OPEN) {
                told_typing_at = performance.now();
                here.publish({name: own_name}).catch(function () { /* Not worth a word. */ });
            }
        });
        return function (text) {
            const message = messages.make(text, own_name);
            messages.show_unconfirmed(message);
            told_typing_at = -TYPING_EVERY_MS;
            channel.publish(message).then(function () {
                messages.confirm(message.id);
            }).catch(function (error) {
                messages.remove(message.id);
                messages.show_error('Not sent: ' + error.message);
                text_field.value = text_field.value || text;
            });
        };
    }

    function open_stream() {
        const since = page.dataset.since;
        const source = new EventSource(page.dataset.streamUri.replace(/^ws/, 'http')
            + (since ? '&since=' + encodeURIComponent(since) : ''));
        window.showcase.show_connection('connecting');
        source.onopen = function () {
            window.showcase.show_connection('connected', 'Receiving by EventSource');
        };
        source.onerror = function () { window.showcase.show_connection('closed'); };
        source.onmessage = function (event) { receive(event.data); };
        source.addEventListener('gap', show_gap);
        return async function (text) {
            const error = await window.showcase.post(form);
            messages.show_error(error);
            if (error !== '') {
                text_field.value = text_field.value || text;
            }
        };
    }

    const send = page.dataset.transport === 'event-stream' ? open_stream() : open_websocket();

    form.addEventListener('submit', function (event) {
        const text = text_field.value.trim();
        event.preventDefault();
        messages.show_error('');
        if (text !== '') {
            send(text);
            text_field.value = '';
        }
        text_field.focus();
    });
}());
