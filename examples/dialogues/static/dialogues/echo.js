/** The echo: show what comes back, and how long that took. */
(function () {
    'use strict';

    const MOST_ECHOES_SHOWN = 100;
    const RECONNECT_AFTER_MS = 2000;

    const echoes = document.getElementById('echoes');
    const form = document.getElementById('composer');
    const field = document.getElementById('message');
    const send_button = document.getElementById('send');

    // The view answers in order, so the first time belongs to the first echo.
    let sent_at = [];
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
        echoes.scrollTop = echoes.scrollHeight;
    }

    function connect() {
        window.show_connection('connecting', 'Connecting…');
        websocket = window.open_dialogue();
        sent_at = [];
        websocket.onopen = function () {
            window.show_connection('connected', 'Connected');
            send_button.disabled = false;
        };
        websocket.onmessage = function (event) {
            show(event.data, performance.now() - sent_at.shift());
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
            sent_at.push(performance.now());
            websocket.send(field.value);
            field.value = '';
        }
        field.focus();
    });

    connect();
}());
