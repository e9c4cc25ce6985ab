/** What both pages need: the page's own URL as that of a websocket, and the state of that. */
(function () {
    'use strict';

    const element = document.getElementById('connection');

    /** Open a websocket to the view that has served this page. */
    window.open_dialogue = function () {
        const url = new URL(window.location.href);
        url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
        url.hash = '';
        return new WebSocket(url.href);
    };

    window.show_connection = function (state, text) {
        element.dataset.state = state;
        element.textContent = text;
    };
}());
