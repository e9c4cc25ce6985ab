/** A connection with a token that expires every few seconds. */
(function () {
    'use strict';

    const page = document.getElementById('content');
    const left = document.getElementById('left');
    const withhold = document.getElementById('withhold');
    let shown = 0;
    let opened = 0;
    let ends_at = 0;

    async function get_token() {
        if (withhold.checked) {
            window.showcase.note('A token was asked for, and none was given.');
            // The client goes on with the one it has, as where the view cannot be reached.
            throw new Error('no token is given');
        }
        const response = await fetch(page.dataset.tokenUri, {credentials: 'same-origin'});
        const answer = await response.json();
        shown += 1;
        ends_at = Date.now() + left.max * 1000;
        window.showcase.set_text('shown', shown);
        window.showcase.note(shown === 1 ? 'The first token was fetched.'
            : 'Token number ' + shown + ' was fetched and shown.');
        return answer.token;
    }

    WS4Redis.connect({
        uri: page.dataset.clientUri,
        get_token: get_token,
        connecting: function () { window.showcase.show_connection('connecting'); },
        connected: function (reply) {
            opened += 1;
            window.showcase.set_text('opened', opened);
            window.showcase.show_connection('connected');
            window.showcase.note(reply.expires
                ? 'Connected, for ' + reply.ttl + ' seconds.'
                : 'Connected without a token, as whom the cookie names.');
        },
        disconnected: function (event) {
            window.showcase.show_connection('closed',
                event.code >= 3500 && event.code < 4000 ? 'Ended: reload the page' : undefined);
            window.showcase.note('The connection ended: ' + event.code + ' ' + event.reason);
        }
    });

    window.setInterval(function () {
        const seconds = Math.max(0, ends_at - Date.now()) / 1000;
        left.value = seconds;
        window.showcase.set_text('seconds', seconds.toFixed(1) + ' s');
    }, 100);
}());
