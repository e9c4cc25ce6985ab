/** What the pages whose messages are JSON have in common. */
(function () {
    'use strict';

    /** Return the object in a message, or an empty one if the message is anything else. */
    window.read_json = function (data) {
        let value = null;
        try {
            value = JSON.parse(data);
        } catch (error) {
            // Not JSON: such as the string of WS4REDIS_HEARTBEAT.
        }
        return value !== null && typeof value === 'object' ? value : {};
    };
}());
