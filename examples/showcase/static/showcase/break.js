/** Count what arrives while things are broken. */
(function () {
    'use strict';

    const MOST_SQUARES = 160;
    const LATE_MS = 1500;
    const SILENT_MS = 6000;
    const OWN_EVERY_MS = 1000;

    const page = document.getElementById('content');
    const squares = document.getElementById('squares');
    const sending = document.getElementById('sending');
    const form = document.getElementById('ways');
    const silent = document.getElementById('silent');

    const counts = {
        sent: 0, received: 0, recovered: 0, missing: 0, twice: 0, gaps: 0,
        own_sent: 0, own_confirmed: 0, own_waiting: 0, own_received: 0, own_twice: 0, own_failed: 0
    };
    const own_seen = new Set();
    let run = null;
    let first = 0;
    let newest = 0;
    let in_reply = 0;
    let lost_at = null;
    let recovered_before = 0;
    let heard_at = Date.now();

    function show() {
        Object.keys(counts).forEach(function (name) {
            window.showcase.set_text(name, counts[name]);
        });
    }

    function add_square(kind, number) {
        const square = document.createElement('li');
        square.className = 'square ' + kind;
        square.dataset.number = number;
        squares.append(square);
        while (squares.children.length > MOST_SQUARES) {
            squares.firstElementChild.remove();
        }
    }

    function take(tick) {
        const was_missed = in_reply > 0 || Date.now() - tick.made_at > LATE_MS;
        in_reply = Math.max(0, in_reply - 1);
        heard_at = Date.now();
        silent.hidden = true;
        if (tick.run !== run) {
            // The process that numbers messages was started anew.
            run = tick.run;
            first = tick.number;
            newest = tick.number - 1;
            counts.sent = 0;
        }
        if (tick.number <= newest) {
            counts.twice += 1;
            return;
        }
        for (let number = newest + 1; number < tick.number; number += 1) {
            counts.missing += 1;
            add_square('missing', number);
        }
        newest = tick.number;
        counts.sent = newest - first + 1;
        counts.received += 1;
        counts.recovered += was_missed ? 1 : 0;
        add_square(was_missed ? 'recovered' : 'live', tick.number);
    }

    const connection = WS4Redis.connect({
        uri: page.dataset.clientUri,
        connecting: function () { window.showcase.show_connection('connecting'); },
        connected: function () {
            window.showcase.show_connection('connected');
            if (lost_at !== null) {
                const seconds = ((Date.now() - lost_at) / 1000).toFixed(1);
                window.showcase.note('Connected again after ' + seconds + ' s.');
                lost_at = null;
            }
        },
        disconnected: function (event) {
            window.showcase.show_connection('closed');
            lost_at = lost_at || Date.now();
            window.showcase.note('The connection is lost: ' + event.code + ' ' + event.reason);
        }
    });

    connection.subscribe('ticker', {
        subscribed: function (reply) {
            in_reply = reply.was_recovering ? (reply.publications || []).length : 0;
        },
        received: function (tick) {
            take(tick);
            show();
        },
        gap: function () {
            counts.gaps += 1;
            add_square('gap', 0);
            window.showcase.note('A gap was told: what Redis has lost cannot be had.');
            show();
        }
    });

    const own = connection.subscribe(page.dataset.ownChannel, {
        received: function (message) {
            counts.own_twice += own_seen.has(message.number) ? 1 : 0;
            own_seen.add(message.number);
            counts.own_received = own_seen.size;
            show();
        }
    });

    window.setInterval(function () {
        silent.hidden = Date.now() - heard_at < SILENT_MS
            || connection.get_state() !== WebSocket.OPEN;
        if (counts.recovered > recovered_before && lost_at === null) {
            window.showcase.note('Recovered: ' + (counts.recovered - recovered_before) + '.');
            recovered_before = counts.recovered;
        }
        if (!sending.checked) {
            return;
        }
        counts.own_sent += 1;
        counts.own_waiting += 1;
        own.publish({number: counts.own_sent}).then(function () {
            counts.own_confirmed += 1;
        }).catch(function () {
            counts.own_failed += 1;
        }).then(function () {
            counts.own_waiting -= 1;
            show();
        });
        show();
    }, OWN_EVERY_MS);

    form.addEventListener('submit', async function (event) {
        const button = event.submitter;
        event.preventDefault();
        window.showcase.note(button.dataset.done + ' …');
        window.showcase.set_text('error', await window.showcase.post(form, button));
    });
}());
