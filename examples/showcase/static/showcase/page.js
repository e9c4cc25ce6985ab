/** What the pages have in common: the state of the connection, a log, forms that do not reload. */
(function () {
    'use strict';

    const MOST_LINES = 50;
    const CONNECTION_TEXTS = {
        connecting: 'Connecting…',
        connected: 'Connected',
        closed: 'Connection lost, trying again…'
    };

    window.showcase = {
        show_connection: show_connection,
        set_text: set_text,
        note: note,
        post: post
    };

    function show_connection(state, text) {
        const element = document.getElementById('connection');
        element.dataset.state = state;
        element.textContent = text || CONNECTION_TEXTS[state];
    }

    function set_text(id, value) {
        const element = document.getElementById(id);
        if (element !== null && element.textContent !== String(value)) {
            element.textContent = value;
        }
    }

    /** Add a line to the log, the newest first. */
    function note(text) {
        const log = document.getElementById('log');
        const line = document.createElement('li');
        const time = document.createElement('time');
        time.textContent = new Date().toLocaleTimeString();
        line.append(time, ' ', text);
        log.prepend(line);
        while (log.children.length > MOST_LINES) {
            log.lastElementChild.remove();
        }
    }

    /** Post a form, and return an error as text, empty if there is none. */
    async function post(form, submitter) {
        const body = new FormData(form);
        const has_action = submitter && submitter.hasAttribute('formaction');
        if (submitter && submitter.name) {
            body.append(submitter.name, submitter.value);
        }
        try {
            const response = await fetch(has_action ? submitter.formAction : form.action, {
                method: 'POST',
                body: body,
                headers: {Accept: 'application/json'},
                credentials: 'same-origin'
            });
            const answer = await response.json().catch(function () { return {}; });
            return response.ok ? '' : answer.error || 'Not done (' + response.status + ').';
        } catch (error) {
            return 'The server cannot be reached.';
        }
    }

    // Forms whose outcome comes by the websocket.

    document.querySelectorAll('.quiet-form').forEach(function (form) {
        form.addEventListener('submit', async function (event) {
            event.preventDefault();
            const error = await post(form, event.submitter);
            set_text(form.dataset.error, error);
            if (error === '' && form.hasAttribute('data-reset')) {
                form.reset();
                form.querySelector('input[type=text]').focus();
            }
        });
    });

    // A line that changes takes the focus of its buttons with it.

    let focused = null;
    document.addEventListener('focusin', function (event) {
        focused = event.target.id || null;
    });
    document.addEventListener('ws4redis-rendered', function () {
        const element = focused === null ? null : document.getElementById(focused);
        if (element !== null && document.activeElement === document.body) {
            element.focus();
        }
    });
}());
