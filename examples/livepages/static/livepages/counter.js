/** The random counter: ask for the next number, show it, wait, ask again. */
(function () {
    'use strict';

    const BARS = 32;
    const CONNECTION_TEXTS = {
        connecting: 'Connecting…',
        connected: 'Connected',
        closed: 'Connection lost, trying again…'
    };

    const page = document.getElementById('content');
    const connection = document.getElementById('connection');
    const count = document.getElementById('count');
    const step_line = document.getElementById('step');
    const steps = document.getElementById('steps');
    const toggle = document.getElementById('toggle');

    let websocket = null;
    let timer = null;
    let paused = false;

    function show_connection(state) {
        connection.dataset.state = state;
        connection.textContent = CONNECTION_TEXTS[state];
        toggle.disabled = state !== 'connected';
    }

    function ask() {
        timer = null;
        if (!paused && websocket.is_connected()) {
            websocket.send_message('next');
        }
    }

    function show(answer) {
        const bar = document.createElement('li');
        count.textContent = answer.count.toLocaleString();
        step_line.textContent = 'The last step was ' + answer.step;
        bar.className = 'step-' + answer.step;
        steps.appendChild(bar);
        while (steps.children.length > BARS) {
            steps.firstElementChild.remove();
        }
        window.clearTimeout(timer);
        timer = window.setTimeout(ask, answer.wait_ms);
    }

    websocket = new WS4Redis({
        uri: page.dataset.websocketUri,
        connecting: function () {
            show_connection('connecting');
        },
        connected: function () {
            show_connection('connected');
            // Each websocket has a handler of its own: a new one begins at nought.
            count.textContent = '0';
            steps.replaceChildren();
            ask();
        },
        receive_message: function (data) {
            const answer = window.read_json(data);
            if (answer.count !== undefined) {
                show(answer);
            }
        },
        disconnected: function () {
            show_connection('closed');
        }
    });

    toggle.addEventListener('click', function () {
        paused = !paused;
        toggle.textContent = paused ? 'Go on' : 'Pause';
        if (!paused && timer === null) {
            ask();
        }
    });
}());
