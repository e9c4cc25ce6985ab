/**
 * The three chats: show what arrives by the websocket, send what is written.
 *
 * A message is JSON, as chat_messages.py describes it. Whatever is not, such as a text published by
 * redis-cli, is shown as a message from nobody in particular. All of it ends up in `textContent`.
 */
(function () {
    'use strict';

    const MOST_MESSAGES_SHOWN = 300;
    const NEAR_THE_END_PX = 80;
    const PAUSE_MS = 5 * 60 * 1000;
    const NOBODY = 'redis';
    const AVATAR_COLOURS = 6;
    const UNAVAILABLE = 503;
    const GUEST_NAME_KEY = 'chatserver.guest_name';
    const CONNECTION_TEXTS = {
        connecting: 'Connecting…',
        connected: 'Connected',
        closed: 'Connection lost, trying again…'
    };

    const chat = document.getElementById('content');
    const connection = document.getElementById('connection');
    const messages = document.getElementById('messages');
    const list = document.getElementById('message-list');
    const template = document.getElementById('message-template');
    const form = document.getElementById('composer');
    const text_field = document.getElementById('text_message');
    const guest_name_field = document.getElementById('guest_name');
    const send_button = document.getElementById('send_message');
    const error_line = document.getElementById('error');

    const username = chat.dataset.username;
    const may_publish = chat.dataset.websocketUri.indexOf('publish-broadcast') !== -1;

    // Identifiers of messages sent through the websocket: their texts, until they come back.
    const unconfirmed = new Map();
    const own_ids = new Set();
    const shown_ids = new Set();
    let last_raw = null;
    let error_passes = false;
    let just_connected = false;

    // Messages

    function read_message(data) {
        let given = null;
        if (typeof data !== 'string') {
            return {text: 'A binary message of ' + data.size + ' bytes', sender: NOBODY};
        }
        try {
            given = JSON.parse(data);
        } catch (error) {
            // It is plain text, then.
        }
        if (given === null || typeof given !== 'object' || typeof given.text !== 'string') {
            return {text: data, sender: NOBODY};
        }
        return {
            text: given.text,
            sender: String(given.sender || NOBODY),
            recipient: String(given.recipient || ''),
            id: String(given.id || ''),
            sent_at: given.sent_at
        };
    }

    function new_message(text) {
        return {
            text: text,
            sender: username || guest_name_field.value.trim() || guest_name_field.placeholder,
            recipient: '',
            id: random_id(),
            sent_at: Date.now()
        };
    }

    function random_id() {
        const parts = window.crypto.getRandomValues(new Uint32Array(4));
        return Array.from(parts, function (part) {
            return part.toString(16).padStart(8, '0');
        }).join('');
    }

    function is_repeated(data, message) {
        // After a reconnection the server sends the kept message, which we may have seen.
        const repeated =
            message.id ? shown_ids.has(message.id) : just_connected && data === last_raw;
        just_connected = false;
        last_raw = data;
        if (message.id) {
            shown_ids.add(message.id);
        }
        return repeated;
    }

    function show(message) {
        const was_at_end = is_at_end();
        const item = template.content.firstElementChild.cloneNode(true);
        item.dataset.id = message.id || '';
        item.querySelector('.sender').textContent = message.sender;
        item.querySelector('.recipient').textContent =
            message.recipient ? 'to ' + message.recipient : '';
        item.querySelector('.text').textContent = message.text;
        if (own_ids.has(message.id) || (username && message.sender === username)) {
            item.classList.add('own');
        }
        show_time(item.querySelector('time'), new Date(message.sent_at || Date.now()));
        list.appendChild(item);
        dress(item);
        while (list.children.length > MOST_MESSAGES_SHOWN) {
            list.firstElementChild.remove();
        }
        if (was_at_end || item.classList.contains('own')) {
            messages.scrollTop = messages.scrollHeight;
        }
    }

    function show_time(element, date) {
        if (!isNaN(date)) {
            element.dateTime = date.toISOString();
            element.textContent =
                date.toLocaleTimeString([], {hour: '2-digit', minute: '2-digit'});
        }
    }

    /** Give a message its avatar, and join it to the one before from the same sender. */
    function dress(item) {
        const sender = item.querySelector('.sender').textContent;
        const avatar = item.querySelector('.avatar');
        const colour = Array.from(sender).reduce(function (sum, character) {
            return sum + character.codePointAt(0);
        }, 0) % AVATAR_COLOURS;
        avatar.textContent = (Array.from(sender)[0] || '').toUpperCase();
        avatar.classList.add(sender === NOBODY ? 'colour-nobody' : 'colour-' + colour);
        const previous = item.previousElementSibling;
        if (previous && heading(previous) === heading(item)
                && sent_at_ms(item) - sent_at_ms(previous) < PAUSE_MS) {
            item.classList.add('continued');
        }
    }

    function sent_at_ms(item) {
        return Date.parse(item.querySelector('time').dateTime);
    }

    function heading(item) {
        const parts = ['.sender', '.recipient'].map(function (selector) {
            return item.querySelector(selector).textContent;
        });
        return JSON.stringify(parts.concat(item.classList.contains('own')));
    }

    function is_at_end() {
        const below = messages.scrollHeight - messages.scrollTop - messages.clientHeight;
        return below < NEAR_THE_END_PX;
    }

    // Connection

    function show_connection(state) {
        connection.dataset.state = state;
        connection.textContent = CONNECTION_TEXTS[state];
    }

    const websocket = new WS4Redis({
        uri: chat.dataset.websocketUri,
        heartbeat_msg: JSON.parse(chat.dataset.heartbeat),
        connecting: function () {
            show_connection('connecting');
        },
        connected: function () {
            just_connected = true;
            show_connection('connected');
            end_passing_error();
        },
        receive_message: function (data) {
            const message = read_message(data);
            end_passing_error();
            unconfirmed.delete(message.id);
            if (!is_repeated(data, message)) {
                show(message);
            }
        },
        disconnected: function () {
            show_connection('closed');
            give_back_unconfirmed();
        }
    });

    // Sending

    function send(text) {
        if (may_publish && websocket.is_connected()) {
            send_by_websocket(text);
        } else {
            send_by_post();
        }
    }

    function send_by_websocket(text) {
        const message = new_message(text);
        own_ids.add(message.id);
        unconfirmed.set(message.id, text);
        websocket.send_message(JSON.stringify(message));
        text_field.value = '';
    }

    /** A message that was on its way when the connection broke may or may not have arrived. */
    function give_back_unconfirmed() {
        if (unconfirmed.size > 0) {
            const texts = Array.from(unconfirmed.values());
            unconfirmed.clear();
            show_error('The connection broke. Your last message may not have arrived.');
            if (text_field.value === '') {
                text_field.value = texts.join(' ');
            }
        }
    }

    async function send_by_post() {
        send_button.disabled = true;
        try {
            const response = await fetch(form.action, {
                method: 'POST',
                body: new FormData(form),
                headers: {Accept: 'application/json'},
                credentials: 'same-origin'
            });
            const answer = await response.json().catch(function () { return {}; });
            if (response.ok) {
                own_ids.add(answer.id);
                text_field.value = '';
                mark_own(answer.id);
            } else {
                show_error(answer.error || 'Your message was not sent (' + response.status + ').');
                error_passes = response.status === UNAVAILABLE;
            }
        } catch (error) {
            show_error('The server cannot be reached. Your message was not sent.');
            error_passes = true;
        } finally {
            send_button.disabled = false;
        }
    }

    /** The message may come by the websocket before the answer to our POST does. */
    function mark_own(id) {
        Array.from(list.children).forEach(function (item) {
            if (item.dataset.id === id) {
                item.classList.add('own');
            }
        });
    }

    function show_error(text) {
        error_line.textContent = text;
        error_passes = false;
    }

    /** The server, or Redis behind it, can be reached again. */
    function end_passing_error() {
        if (error_passes) {
            show_error('');
        }
    }

    form.addEventListener('submit', function (event) {
        const text = text_field.value.trim();
        event.preventDefault();
        show_error('');
        if (text !== '' && !send_button.disabled) {
            send(text);
        }
        text_field.focus();
    });

    // The name of a guest

    function with_storage(callback) {
        try {
            return callback(window.localStorage);
        } catch (error) {
            // Storage may be full, or forbidden: then the name lasts as long as the page.
            return null;
        }
    }

    if (guest_name_field) {
        guest_name_field.placeholder = 'Guest ' + (100 + Math.floor(Math.random() * 900));
        guest_name_field.value = guest_name_field.value || with_storage(function (storage) {
            return storage.getItem(GUEST_NAME_KEY);
        }) || '';
        guest_name_field.addEventListener('change', function () {
            with_storage(function (storage) {
                storage.setItem(GUEST_NAME_KEY, guest_name_field.value.trim());
            });
        });
    }

    // What the server rendered

    Array.from(list.children).forEach(function (item) {
        if (item.dataset.id) {
            shown_ids.add(item.dataset.id);
        } else {
            last_raw = item.querySelector('.text').textContent;
        }
        const time = item.querySelector('time');
        if (time.dateTime) {
            show_time(time, new Date(time.dateTime));
        }
        dress(item);
    });
    send_button.disabled = form.querySelector('.recipients') !== null
        && form.querySelector('.recipients input') === null;
}());
