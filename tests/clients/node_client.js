'use strict';
// Run with: the folder of packages, the URL, options as JSON. Takes bodies of async functions, one a
// line as a JSON string, and answers each with {value} or {thrown}.
const [packages, url, options] = process.argv.slice(2);
const {Centrifuge} = require(packages + '/centrifuge');
const WebSocket = require(packages + '/ws');

const seen = [];
const waiting = [];

function note(name, context) {
    seen.push({name, ...context});
    waiting.splice(0).forEach(function (check) { check(); });
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

// One URL of a websocket, or transports as a JSON list.
const centrifuge = new Centrifuge(url.startsWith('[') ? JSON.parse(url) : url, {
    websocket: WebSocket,
    eventsource: require(packages + '/eventsource'),
    minReconnectDelay: 50,
    maxReconnectDelay: 500,
    ...JSON.parse(options)
});
for (const name of [
    'connecting', 'connected', 'disconnected', 'publication', 'message', 'error',
    'subscribed', 'subscribing', 'unsubscribed', 'join', 'leave'
]) {
    centrifuge.on(name, function (context) {
        note((name === 'publication' ? 'server_' : '') + name, context);
    });
}

const subs = {};

function subscription(channel, sub_options) {
    if (!subs[channel]) {
        const sub = subs[channel] = centrifuge.newSubscription(channel, {
            minResubscribeDelay: 50, maxResubscribeDelay: 500, ...sub_options
        });
        for (const name of [
            'publication', 'subscribed', 'subscribing', 'unsubscribed', 'error', 'join', 'leave'
        ]) {
            sub.on(name, function (context) { note('sub_' + name, context); });
        }
    }
    return subs[channel];
}

async function subscribed(channel, sub_options) {
    const sub = subscription(channel, sub_options);
    sub.subscribe();
    return event_of(channel, ['sub_subscribed', 'sub_unsubscribed']);
}

function event_of(channel, names) {
    return until(function () {
        return seen.find(function (each) {
            return each.channel === channel && names.includes(each.name);
        });
    });
}

function event(name, number) {
    return until(function () {
        return seen.filter(function (each) { return each.name === name; })[number - 1];
    });
}

function publications(channel) {
    return seen.filter(function (each) {
        return /publication$/.test(each.name) && each.channel === channel;
    });
}

async function received(channel, count) {
    await until(function () { return publications(channel).length >= count; });
    return publications(channel).map(function (each) { return each.data; });
}

void subscribed, received, event;

require('./run_lines.js')(
    (code) => eval(code), (error) => error instanceof Error ? String(error) : error
);
