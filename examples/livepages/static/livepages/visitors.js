/**
 * The visitors: one websocket says that we are here, another one hears who else is.
 *
 * Names end up in `textContent` alone.
 */
(function () {
    'use strict';

    const STILL_HERE_MS = 20 * 1000;
    const AVATAR_COLOURS = 6;
    const CONNECTION_TEXTS = {
        connecting: 'Connecting…',
        connected: 'Connected',
        closed: 'Connection lost, trying again…'
    };

    const page = document.getElementById('content');
    const connection = document.getElementById('connection');
    const number = document.getElementById('number');
    const list = document.getElementById('visitors');
    const more = document.getElementById('more');
    const template = document.getElementById('visitor-template');

    let own_id = null;
    let present = null;

    function show_connection(state) {
        connection.dataset.state = state;
        connection.textContent = CONNECTION_TEXTS[state];
    }

    function item_of(visitor) {
        const item = template.content.firstElementChild.cloneNode(true);
        const avatar = item.querySelector('.avatar');
        const colour = Array.from(visitor.name).reduce(function (sum, character) {
            return sum + character.codePointAt(0);
        }, 0) % AVATAR_COLOURS;
        avatar.textContent = (Array.from(visitor.name)[0] || '').toUpperCase();
        avatar.classList.add(visitor.is_guest ? 'colour-nobody' : 'colour-' + colour);
        item.querySelector('.visitor-name').textContent = visitor.name;
        item.classList.toggle('you', visitor.id === own_id);
        return item;
    }

    function show() {
        if (present === null) {
            return;
        }
        number.textContent = present.count === 0 ? 'Nobody' : String(present.count);
        list.replaceChildren.apply(list, present.visitors.map(item_of));
        const unnamed = present.count - present.visitors.length;
        more.textContent = unnamed > 0 ? 'and ' + unnamed + ' more' : '';
    }

    new WS4Redis({
        uri: page.dataset.channelUri,
        heartbeat_msg: JSON.parse(page.dataset.heartbeat),
        receive_message: function (data) {
            const told = window.read_json(data);
            if (told.visitors !== undefined) {
                present = told;
                show();
            }
        }
    });

    const presence = new WS4Redis({
        uri: page.dataset.presenceUri,
        connecting: function () {
            show_connection('connecting');
        },
        connected: function () {
            show_connection('connected');
            presence.send_message('here');
        },
        receive_message: function (data) {
            const told = window.read_json(data);
            if (told.you !== undefined) {
                own_id = told.you;
                show();
            }
        },
        disconnected: function () {
            show_connection('closed');
        }
    });

    window.setInterval(function () {
        if (presence.is_connected()) {
            presence.send_message('still here');
        }
    }, STILL_HERE_MS);
}());
