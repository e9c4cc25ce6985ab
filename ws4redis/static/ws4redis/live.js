/**
 * The live page: shows what all processes do, as they tell it over a websocket. While none has
 * told anything lately, it is asked for every few seconds, as long as somebody can see it.
 *
 * Names of facilities and messages are what clients choose, so all is written as text.
 */
(function () {
    'use strict';

    const INTERVAL_MS = 3000;
    // Who has not asked for longer is told nothing any more.
    const RENEWAL_MS = 45000;
    const ANSWERS_MS = 2000;
    const ANSWER_INTERVAL_MS = 150;
    const SECONDS_PER_POINT = 10;
    const WIDTH = 300;
    const HEIGHT = 100;
    const SVG = 'http://www.w3.org/2000/svg';

    const live = document.getElementById('live');
    const form = document.getElementById('live-form');
    const sending = document.getElementById('live-send');
    const whole = new Intl.NumberFormat(undefined, {maximumFractionDigits: 0});
    const short = new Intl.NumberFormat(undefined, {maximumFractionDigits: 1});

    const by_id = (id) => document.getElementById(id);
    const milliseconds = (seconds) => short.format(seconds * 1000) + ' ms';
    const rate = (number) => (number < 100 ? short : whole).format(number);

    function bytes(number) {
        const units = ['B', 'KB', 'MB', 'GB'];
        let unit = 0;
        while (number >= 1024 && unit < units.length - 1) {
            number /= 1024;
            unit += 1;
        }
        return short.format(number) + ' ' + units[unit];
    }

    function age(since) {
        const seconds = Math.max(0, Date.now() / 1000 - since);
        const [length, unit] = seconds < 3600 ? [60, 'min'] :
            seconds < 172800 ? [3600, 'h'] : [86400, 'days'];
        return Math.floor(seconds / length) + ' ' + unit;
    }

    const TOTALS = {
        open: whole.format, sent_per_second: rate, received_per_second: rate,
        lag_p99: milliseconds, queued_bytes: bytes, processes: whole.format
    };

    function show(news) {
        Object.entries(TOTALS).forEach(([name, format]) => {
            const cell = live.querySelector('[data-total=' + name + ']');
            cell.textContent = format(news.totals[name] || 0);
        });
        rows('processes', news.processes.map((process) => [
            {head: process.host + ' ' + process.pid},
            {number: whole.format(process.open)},
            {number: Math.round(process.load * 100) + ' %', bad: process.load > 0.85},
            {number: milliseconds(process.lag_p50)},
            {number: milliseconds(process.lag_p99), bad: process.lag_p99 > 0.1},
            {number: rate(process.sent_per_second)},
            {number: rate(process.received_per_second)},
            {number: bytes(process.queued_bytes)},
            {number: whole.format(process.channels)},
            {
                text: process.redis_connected ? (process.redis_seconds === null ? 'connected' :
                    milliseconds(process.redis_seconds)) : 'away',
                bad: !process.redis_connected
            },
            {text: age(process.begun), word: true}
        ]), 'No process holds websockets.');
        rows('facilities', news.facilities.map((facility) => [
            {head: facility.name, choose: facility.name},
            {number: rate(facility.messages_per_second)},
            {number: whole.format(facility.websockets)}
        ]), 'Nothing was published in the last seconds.');
        live.querySelectorAll('[data-chart]').forEach((svg) => {
            draw(svg, news.past[svg.dataset.chart]);
        });
    }

    function rows(name, lines, nothing) {
        const body = live.querySelector('[data-rows=' + name + ']');
        const focused = body.contains(document.activeElement) ?
            document.activeElement.textContent : null;
        const columns = body.parentNode.querySelectorAll('th[scope=col]').length;
        body.replaceChildren(...lines.map((cells) => {
            const row = document.createElement('tr');
            row.append(...cells.map(cell_of));
            return row;
        }));
        if (lines.length === 0) {
            const cell = document.createElement('td');
            cell.colSpan = columns;
            cell.textContent = nothing;
            body.insertRow().append(cell);
        }
        // Who came here by the keyboard stays.
        body.querySelectorAll('button').forEach((button) => {
            if (button.textContent === focused) {
                button.focus();
            }
        });
    }

    function cell_of(cell) {
        const element = document.createElement('head' in cell ? 'th' : 'td');
        if ('head' in cell) {
            element.scope = 'row';
        }
        if ('choose' in cell) {
            const button = document.createElement('button');
            button.type = 'button';
            button.className = 'live-choice';
            button.textContent = cell.head;
            button.onclick = () => choose(cell.choose);
            element.append(button);
        } else {
            element.textContent = cell.head || cell.number || cell.text;
        }
        element.classList.toggle('live-number', 'number' in cell);
        element.classList.toggle('live-word', cell.word === true);
        element.classList.toggle('live-bad', cell.bad === true);
        return element;
    }

    function draw(svg, values) {
        const is_lag = svg.dataset.unit === 'ms';
        const scaled = values.map((value) => (is_lag ? value * 1000 : value));
        const top = Math.max(...scaled, 1e-9);
        const last = scaled.length - 1;
        const x = (place) => WIDTH - (last - place) * WIDTH / 89;
        const points = scaled.map(
            (value, place) => x(place).toFixed(1) + ',' + (HEIGHT - value / top * HEIGHT).toFixed(1)
        );
        svg.setAttribute('viewBox', '0 0 ' + WIDTH + ' ' + HEIGHT);
        svg.setAttribute('preserveAspectRatio', 'none');
        const caption = svg.parentNode.querySelector('figcaption').textContent;
        const now = scaled.length ? short.format(scaled[last]) : '–';
        const unit = is_lag ? ' ms' : svg.dataset.unit;
        svg.setAttribute('aria-label', caption + ': now ' + now + unit + ', at most ' +
            short.format(scaled.length ? top : 0) + unit);
        svg.replaceChildren(
            shape('path', 'live-grid', {d: 'M0,' + HEIGHT + 'H' + WIDTH + 'M0,0H' + WIDTH})
        );
        if (points.length) {
            svg.append(
                shape('polygon', 'live-area', {
                    points: [x(0) + ',' + HEIGHT].concat(points, WIDTH + ',' + HEIGHT).join(' ')
                }),
                shape('polyline', 'live-line', {points: points.join(' ')})
            );
        }
        let legend = svg.parentNode.querySelector('p');
        if (legend === null) {
            legend = document.createElement('p');
            legend.append(document.createElement('span'), document.createElement('span'));
            svg.after(legend);
        }
        const minutes = Math.round(scaled.length * SECONDS_PER_POINT / 60);
        legend.children[0].textContent = minutes ? minutes + ' min, at most ' +
            short.format(top) + unit : '';
        legend.children[1].textContent = 'now ' + now + unit;
    }

    function shape(name, class_name, attributes) {
        const element = document.createElementNS(SVG, name);
        element.setAttribute('class', class_name);
        Object.entries(attributes).forEach(([key, value]) => element.setAttribute(key, value));
        return element;
    }

    function ask(url, options) {
        const settings = Object.assign({credentials: 'same-origin'}, options);
        return fetch(url, settings).then((response) => response.json().then((answer) => {
            if (!response.ok) {
                throw new Error(answer.error || 'The server answers ' + response.status + '.');
            }
            return answer;
        }, () => {
            throw new Error('The server answers ' + response.status + '.');
        }));
    }

    // What the page is told, and asks for: once at a time, while somebody can see it.

    const patience = 3 * Number(live.dataset.interval) * 1000 + INTERVAL_MS;
    let timer = null;
    let asked_at = -Infinity;
    let told_at = -Infinity;

    function refresh() {
        clearTimeout(timer);
        if (document.hidden) {
            return;
        }
        const now = performance.now();
        if (now - told_at < patience && now - asked_at < RENEWAL_MS) {
            timer = setTimeout(refresh, INTERVAL_MS);
            return;
        }
        asked_at = now;
        ask(live.dataset.url).then((news) => {
            show_now(news, now - told_at < patience);
        }).catch((error) => {
            say('Not up to date: ' + error.message, true);
        }).then(() => {
            clearTimeout(timer);
            timer = setTimeout(refresh, INTERVAL_MS);
        });
    }

    function show_now(news, is_told) {
        show(news);
        say(is_told ? 'Now, as told over a websocket' : 'Now, as asked for', false);
        by_id('live-time').textContent = 'at ' + new Date().toLocaleTimeString();
    }

    /** Say how up to date the page is; a screen reader reads it out when that changes. */
    function say(text, is_bad) {
        const state = by_id('live-state');
        if (state.textContent !== text) {
            state.textContent = text;
            state.className = is_bad ? 'live-bad' : '';
        }
    }

    /** Take what a process has told, which is the same as what is asked for. */
    function receive(text) {
        let news;
        try {
            news = JSON.parse(text);
        } catch (error) {
            return;
        }
        told_at = performance.now();
        if (!document.hidden) {
            show_now(news, true);
        }
    }

    function listen() {
        try {
            new window.WS4Redis({
                uri: live.dataset.websocket,
                heartbeat_msg: live.dataset.heartbeat || null,
                receive_message: receive,
                disconnected: () => {
                    told_at = -Infinity;
                }
            });
        } catch (error) {
            // It goes on asking.
            window.console.warn(error);
        }
    }

    function choose(facility) {
        form.elements.facility.value = facility;
        form.elements.audience.value = 'broadcast';
        look();
        by_id('live-look').scrollIntoView();
    }

    function look() {
        const values = new URLSearchParams(new FormData(form));
        ask(live.dataset.channel + '?' + values).then((channel) => {
            by_id('live-answer').textContent = channel.messages.length ?
                (channel.has_history ? 'The last messages, newest first:' : 'The kept message:') :
                'There is no message.';
            by_id('live-members').textContent = channel.members === null ? '' :
                channel.count + ' there: ' + channel.members.join(', ');
            by_id('live-messages').replaceChildren(...channel.messages.map((message) => {
                const item = document.createElement('li');
                if (message.offset !== null) {
                    const number = document.createElement('span');
                    number.textContent = message.offset;
                    item.append(number);
                }
                item.append(message.text);
                return item;
            }));
        }).catch(complain);
    }

    function complain(error) {
        by_id('live-answer').textContent = error.message;
        by_id('live-members').textContent = '';
        by_id('live-messages').replaceChildren();
    }

    form.onsubmit = (event) => {
        event.preventDefault();
        look();
    };
    // Who is connected

    const who_form = by_id('live-who-form');
    const more = by_id('live-more');
    // Only the latest question counts.
    let asked = 0;

    function who(after) {
        const values = new URLSearchParams({user: who_form.elements.user.value, after: after});
        asked += 1;
        const mine = asked;
        ask(who_form.dataset.url + '?' + values).then(
            (told) => answers_to(told, Date.now() + ANSWERS_MS)
        ).then((census) => {
            if (mine !== asked) {
                return;
            }
            const body = live.querySelector('[data-rows=who]');
            if (after === '') {
                body.replaceChildren();
            }
            body.append(...census.connections.map((connection) => {
                const row = document.createElement('tr');
                const user = cell_of({head: connection.user});
                add_ending(user, 'Disconnect', {user: connection.user});
                const channels = document.createElement('td');
                connection.channels.forEach((name) => {
                    const line = document.createElement('div');
                    line.textContent = name;
                    add_ending(line, 'Unsubscribe', {user: connection.user, channel: name});
                    channels.append(line);
                });
                if (connection.more_channels) {
                    channels.append('and ' + connection.more_channels + ' more');
                }
                row.append(
                    user, cell_of({text: age(connection.since), word: true}),
                    cell_of({text: connection.transport + (
                        connection.kind === 'channels' ? '' : ', ' + connection.kind)}),
                    cell_of({text: connection.address || '–'}),
                    channels, cell_of({number: bytes(connection.queued_bytes)}),
                    cell_of({text: connection.process})
                );
                return row;
            }));
            body.parentNode.hidden = body.rows.length === 0;
            more.hidden = census.after === '';
            more.onclick = () => who(census.after);
            by_id('live-who-answer').textContent =
                (body.rows.length ? '' : 'No user is connected. ') +
                silent(census.missing);
        }).catch(complain_about_who);
    }

    function silent(number) {
        const processes = number === 1 ? ' process' : ' processes';
        return number ? number + processes + ' did not answer in time.' : '';
    }

    /** Wait for the answers of all processes, but not for long. */
    function answers_to(told, until) {
        return ask(who_form.dataset.answers + '?question=' + told.question).then((census) => {
            census.missing = Math.max(0, told.processes - census.answers);
            if (census.missing === 0 || Date.now() > until) {
                return census;
            }
            return new Promise((later) => setTimeout(later, ANSWER_INTERVAL_MS)).then(
                () => answers_to(told, until)
            );
        });
    }

    function complain_about_who(error) {
        by_id('live-who-answer').textContent = error.message;
    }

    /** Add a button that ends something of a user, for those who may. */
    function add_ending(cell, label, values) {
        if (!who_form.dataset.end) {
            return;
        }
        const button = document.createElement('button');
        button.type = 'button';
        button.className = 'live-choice live-ending';
        button.textContent = label;
        button.setAttribute('aria-label', label + ' ' + values.user +
            (values.channel ? ' from ' + values.channel : ''));
        button.onclick = () => {
            if (!window.confirm(button.getAttribute('aria-label') + '?')) {
                return;
            }
            const body = new FormData(who_form);
            Object.entries(values).forEach(([name, value]) => body.set(name, value));
            ask(who_form.dataset.end, {method: 'POST', body: body}).then((answer) => {
                by_id('live-who-answer').textContent = answer.done;
            }).catch(complain_about_who);
        };
        cell.append(' ', button);
    }

    who_form.onsubmit = (event) => {
        event.preventDefault();
        who('');
    };

    // Who may only look has no form to send.
    if (sending !== null) {
        sending.onsubmit = (event) => {
            event.preventDefault();
            const values = new FormData(sending);
            new FormData(form).forEach((value, name) => values.set(name, value));
            ask(sending.action, {method: 'POST', body: values}).then((answer) => {
                sending.elements.message.value = '';
                by_id('live-answer').textContent = 'Sent to ' + answer.sent + '.';
            }).catch(complain);
        };
    }
    document.addEventListener('visibilitychange', refresh);
    listen();
    refresh();
}());
