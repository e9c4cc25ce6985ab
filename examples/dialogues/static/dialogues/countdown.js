/** The countdown: a websocket for each, which the view closes when it is done. */
(function () {
    'use strict';

    const remaining = document.getElementById('remaining');
    const said = document.getElementById('said');
    const progress = document.getElementById('progress');
    const form = document.getElementById('controls');
    const seconds = document.getElementById('seconds');
    const start_button = document.getElementById('start');
    const stop_button = document.getElementById('stop');

    let websocket = null;

    function show(answer) {
        if (answer.stopped !== undefined) {
            said.textContent = 'Stopped with ' + answer.stopped + ' to go';
            return;
        }
        if (answer.remaining === undefined) {
            return;
        }
        remaining.textContent = answer.remaining;
        progress.value = answer.remaining;
        said.textContent = answer.remaining === 0 ? 'Done' : 'Counting';
    }

    function run() {
        start_button.disabled = true;
        progress.max = seconds.value;
        window.show_connection('connecting', 'Connecting…');
        websocket = window.open_dialogue();
        websocket.onopen = function () {
            window.show_connection('connected', 'Connected');
            stop_button.disabled = false;
            websocket.send(seconds.value);
        };
        websocket.onmessage = function (event) {
            show(window.read_json(event.data));
        };
        websocket.onclose = function (event) {
            const is_end = event.code === 1000;
            window.show_connection(
                is_end ? 'idle' : 'closed', is_end ? 'Closed by the view' : 'Connection lost'
            );
            start_button.disabled = false;
            stop_button.disabled = true;
        };
    }

    form.addEventListener('submit', function (event) {
        event.preventDefault();
        run();
    });
    stop_button.addEventListener('click', function () {
        websocket.send('stop');
    });
}());
