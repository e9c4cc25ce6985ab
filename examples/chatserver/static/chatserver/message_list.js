/**
 * The list of messages in a chat.
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

    /** Return the list of the page, whose reader writes under this name, if it is known. */
    window.make_message_list = function (own_name) {
        const messages = document.getElementById('messages');
        const list = document.getElementById('message-list');
        const template = document.getElementById('message-template');
        const error_line = document.getElementById('error');
        const own_ids = new Set();
        const shown_ids = new Set();

        Array.from(list.children).forEach(adopt);
        messages.scrollTop = messages.scrollHeight;
        return {
            read: read, make: make, show: show, show_note: show_note, show_error: show_error,
            show_unconfirmed: show_unconfirmed, confirm: confirm, remove: remove,
            mark_own: mark_own, own_ids: own_ids, shown_ids: shown_ids
        };

        /** Return the message in what was received: text, a JSON value, or a Blob. */
        function read(data) {
            let given = null;
            if (data instanceof Blob) {
                return {text: 'A binary message of ' + data.size + ' bytes', sender: NOBODY};
            }
            try {
                given = typeof data === 'string' ? JSON.parse(data) : data;
            } catch (error) {
                // It is plain text, then.
            }
            if (given === null || typeof given !== 'object' || typeof given.text !== 'string') {
                return {text: typeof data === 'string' ? data : JSON.stringify(data),
                    sender: NOBODY};
            }
            return {
                text: given.text,
                sender: String(given.sender || NOBODY),
                recipient: String(given.recipient || ''),
                id: String(given.id || ''),
                sent_at: given.sent_at
            };
        }

        function make(text, sender) {
            const message = {
                text: text, sender: sender, recipient: '', id: random_id(), sent_at: Date.now()
            };
            own_ids.add(message.id);
            return message;
        }

        function random_id() {
            const parts = window.crypto.getRandomValues(new Uint32Array(4));
            return Array.from(parts, function (part) {
                return part.toString(16).padStart(8, '0');
            }).join('');
        }

        function show(message) {
            const item = template.content.firstElementChild.cloneNode(true);
            item.dataset.id = message.id || '';
            shown_ids.add(item.dataset.id);
            item.querySelector('.sender').textContent = message.sender;
            item.querySelector('.recipient').textContent =
                message.recipient ? 'to ' + message.recipient : '';
            item.querySelector('.text').textContent = message.text;
            if (own_ids.has(message.id) || (own_name && message.sender === own_name)) {
                item.classList.add('own');
            }
            show_time(item.querySelector('time'), new Date(message.sent_at || Date.now()));
            add(item, dress);
            return item;
        }

        function add(item, then) {
            const was_at_end = is_at_end();
            list.appendChild(item);
            then(item);
            while (list.children.length > MOST_MESSAGES_SHOWN) {
                list.firstElementChild.remove();
            }
            if (was_at_end || item.classList.contains('own')) {
                messages.scrollTop = messages.scrollHeight;
            }
        }

        /** Show a line between the messages. */
        function show_note(text, class_name) {
            const item = document.createElement('li');
            item.className = 'note ' + class_name;
            item.textContent = text;
            add(item, function () {});
        }

        function show_error(text) {
            error_line.textContent = text;
        }

        // A message of our own is shown at once; it counts when it was published.

        function show_unconfirmed(message) {
            show(message).classList.add('unconfirmed');
        }

        /** Return whether a message is shown; it is not unconfirmed any more. */
        function confirm(id) {
            const item = find(id);
            if (item !== undefined) {
                item.classList.remove('unconfirmed');
            }
            return item !== undefined;
        }

        function remove(id) {
            const item = find(id);
            if (item !== undefined) {
                item.remove();
            }
        }

        function mark_own(id) {
            const item = find(id);
            own_ids.add(id);
            if (item !== undefined) {
                item.classList.add('own');
            }
        }

        function find(id) {
            return id ? Array.from(list.children).find(function (item) {
                return item.dataset.id === id;
            }) : undefined;
        }

        /** Take in a message that the server has rendered. */
        function adopt(item) {
            const time = item.querySelector('time');
            if (own_name && item.querySelector('.sender').textContent === own_name) {
                item.classList.add('own');
            }
            if (item.dataset.id) {
                shown_ids.add(item.dataset.id);
            }
            if (time.dateTime) {
                show_time(time, new Date(time.dateTime));
            }
            dress(item);
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
            if (previous && previous.querySelector('.sender')
                    && heading(previous) === heading(item)
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
    };
}());
