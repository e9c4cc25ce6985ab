/** The echo: show what comes back, and how long that took. */
(function () {
    'use strict';

    const MOST_ECHOES_SHOWN = 100;
    const RECONNECT_AFTER_MS = 2000;

    const log = document.getElementById('log');
    const echoes = document.getElementById('echoes');
    const form = document.getElementById('composer');
    const field = document.getElementById('message');
    const send_button = document.getElementById('send');

    // What was sent and has not come back yet, in the order in which the view answers.
    let pending = [];
    let websocket = null;

    function show(text, milliseconds) {
        const item = document.createElement('li');
        const words = document.createElement('span');
        const took = document.createElement('span');
        words.textContent = text;
        took.className = 'took';
        took.textContent = milliseconds.toFixed(1) + ' ms';
        item.append(words, took);
        echoes.appendChild(item);
        while (echoes.children.length > MOST_ECHOES_SHOWN) {
            echoes.firstElementChild.remove();
        }
        log.scrollTop = log.scrollHeight;
    }

    function connect() {
        window.show_connection('connecting', 'Connecting…');
        websocket = window.open_dialogue();
        pending = [];
        websocket.onopen = function () {
            window.show_connection('connected', 'Connected');
            send_button.disabled = false;
        };
        websocket.onmessage = function (event) {
            // Anything else is no echo.
            if (pending.length > 0 && event.data === pending[0].text) {
                const sent = pending.shift();
                show(sent.text, performance.now() - sent.at_ms);
            }
        };
        websocket.onclose = function () {
            window.show_connection('closed', 'Connection lost, trying again…');
            send_button.disabled = true;
            window.setTimeout(connect, RECONNECT_AFTER_MS);
        };
    }

    form.addEventListener('submit', function (event) {
        event.preventDefault();
        if (websocket.readyState === WebSocket.OPEN && field.value !== '') {
            pending.push({text: field.value, at_ms: performance.now()});
            websocket.send(field.value);
            field.value = '';
        }
        field.focus();
    });

    connect();
}());
