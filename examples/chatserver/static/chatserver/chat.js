/** The three chats: show what arrives by the websocket, send what is written. */
(function () {
    'use strict';

    const UNAVAILABLE = 503;
    const GUEST_NAME_KEY = 'chatserver.guest_name';
    const CONNECTION_TEXTS = {
        connecting: 'Connecting…',
        connected: 'Connected',
        closed: 'Connection lost, trying again…'
    };

    const chat = document.getElementById('content');
    const connection = document.getElementById('connection');
    const form = document.getElementById('composer');
    const text_field = document.getElementById('text_message');
    const guest_name_field = document.getElementById('guest_name');
    const send_button = document.getElementById('send_message');

    const username = chat.dataset.username;
    const may_publish = chat.dataset.websocketUri.indexOf('publish-broadcast') !== -1;
    const last_item = document.getElementById('message-list').lastElementChild;
    const messages = window.make_message_list(username);

    // Identifiers of messages sent through the websocket: their texts, until they come back.
    const unconfirmed = new Map();
    let last_raw = last_item && !last_item.dataset.id
        ? last_item.querySelector('.text').textContent : null;
    let error_passes = false;
    let just_connected = false;

    function is_repeated(data, message) {
        // After a reconnection the server sends the kept message, which we may have seen.
        const repeated = message.id ? messages.shown_ids.has(message.id)
            : just_connected && data === last_raw;
        just_connected = false;
        last_raw = data;
        return repeated;
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
            const message = messages.read(data);
            end_passing_error();
            unconfirmed.delete(message.id);
            if (!is_repeated(data, message)) {
                messages.show(message);
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
        const name = username || guest_name_field.value.trim() || guest_name_field.placeholder;
        const message = messages.make(text, name);
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
                text_field.value = '';
                // The message may come by the websocket before the answer to our POST does.
                messages.mark_own(answer.id);
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

    function show_error(text) {
        messages.show_error(text);
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

    send_button.disabled = form.querySelector('.recipients') !== null
        && form.querySelector('.recipients input') === null;
}());
