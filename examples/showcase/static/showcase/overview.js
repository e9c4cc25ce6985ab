/** The start page: it asks for its figures by its websocket. */
(function () {
    'use strict';

    const EVERY_MS = 2000;
    const page = document.getElementById('content');
    const connection = WS4Redis.connect({
        uri: page.dataset.clientUri,
        connecting: function () { window.showcase.show_connection('connecting'); },
        connected: function () {
            window.showcase.show_connection('connected');
            ask();
        },
        disconnected: function () { window.showcase.show_connection('closed'); }
    });

    async function ask() {
        const asked_at = performance.now();
        try {
            const figures = await connection.rpc('demo.figures');
            const milliseconds = performance.now() - asked_at;
            window.showcase.set_text('round_trip', milliseconds.toFixed(1) + ' ms');
            Object.keys(figures).forEach(function (name) {
                window.showcase.set_text(name, figures[name]);
            });
        } catch (error) {
            // The figures stay as they are while Redis or the connection is away.
        }
    }

    window.setInterval(function () {
        if (connection.get_state() === WebSocket.OPEN && !document.hidden) {
            ask();
        }
    }, EVERY_MS);
}());
