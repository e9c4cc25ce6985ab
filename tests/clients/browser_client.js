'use strict';
const path = require('path');

// Runs ws4redis.js in Node. Run with: the folder of packages, the script, the origin of the server.
// Takes bodies of async functions as node_client.js does.
const [packages, script, origin] = process.argv.slice(2);
const NodeWebSocket = require(packages + '/ws');

// What a browser would send with each handshake.
let cookie = '';

globalThis.WebSocket = class extends NodeWebSocket {
    constructor(uri, protocols) {
        super(uri, protocols, {headers: cookie ? {Cookie: cookie} : {}});
        note('opening')(uri);
        // In browsers an error that nobody listens to ends nothing.
        this.on('error', function () {});
    }
};
const WS4Redis = require(path.join(path.dirname(script), 'ws4redis.js'));
if (script.endsWith('-streams.js')) {
    require(script)(WS4Redis);
    globalThis.EventSource = require(packages + '/eventsource');
}

const seen = [];
const waiting = [];

function note(name) {
    return function () {
        seen.push([name].concat(Array.from(arguments)));
        waiting.splice(0).forEach(function (check) { check(); });
    };
}

function until(condition) {
    return new Promise(function (resolve) {
        function check() {
            const result = condition();
            if (result) {
                resolve(result);
            } else {
                waiting.push(check);
            }
        }
        check();
    });
}

/** Wait for the n-th event of a name, and return its arguments. */
function event(name, number) {
    return until(function () {
        const found = seen.filter(function (each) { return each[0] === name; });
        return found[number - 1];
    }).then(function (found) {
        return found.slice(1).map(function (argument) {
            return argument && argument.code && argument.type === 'close'
                ? argument.code : argument;
        });
    });
}

function all(name) {
    return seen.filter(function (each) { return each[0] === name; })
        .map(function (each) { return each[1]; });
}

let classic = null;
let page = null;

function open_classic(path, more) {
    classic = new WS4Redis(Object.assign({
        uri: origin + path,
        connecting: note('connecting'),
        connected: note('connected'),
        receive_message: note('message'),
        disconnected: note('disconnected'),
        gap: note('gap')
    }, more));
    return event('connected', 1);
}

function open_page(path, more) {
    page = WS4Redis.connect(Object.assign({
        uri: origin + path,
        connected: note('connected'),
        disconnected: note('disconnected')
    }, more));
}

function handlers() {
    return {
        received: note('received'), subscribed: note('subscribed'), gap: note('gap'),
        refused: note('refused'), joined: note('joined'), left: note('left')
    };
}

void all, cookie, open_classic, open_page, handlers, page, classic;

require('./run_lines.js')((code) => eval(code));
