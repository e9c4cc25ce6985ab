/**
 * Elements that show what is published: progress, live HTML, a badge and toasts.
 *
 *     <script src="ws4redis.js"></script>
 *     <script src="ws4redis-elements.js" data-uri="wss://example.com/ws/"></script>
 *     <ws4redis-progress facility="import-42"></ws4redis-progress>
 *     <ws4redis-html facility="orders" src="/orders/rows/">…</ws4redis-html>
 *     <ws4redis-badge></ws4redis-badge> <ws4redis-toasts></ws4redis-toasts>
 *
 * `facility` and `audience` (broadcast, user, group or session) say what an element subscribes to.
 * `data-connection` says how its websocket is, `data-state` what it shows. A message that it cannot
 * read is shown as an error, told by the event `ws4redis-error`, and changes nothing.
 *
 * `{% ws4redis_elements %}` writes the tags. `data-heartbeat` is the heartbeat as a JSON string,
 * `data-words` a JSON object with translations of the words below.
 */
(function () {
    'use strict';

    const MAX_TOASTS = 5;
    const TOAST_SECONDS = 8;
    // Timers take no more than 24 days.
    const LONGEST_TOAST_SECONDS = 24 * 3600;
    const STALE_SECONDS = 60;
    const FETCH_TIMEOUT_MS = 30000;
    const HIDDEN_BATCH_MS = 250;

    const script = (document.currentScript || {}).dataset || {};
    const words = Object.assign({
        done: 'Done', failed: 'Failed', stopped: 'Stopped', waiting: 'Waiting', close: 'Close',
        left: 'left', silent: 'no news for', lost: 'No connection',
        unreadable: 'Unreadable message', unread: 'unread'
    }, from_json(script.words));

    function from_json(text) {
        return text ? JSON.parse(text) : null;
    }

    // Elements with the same address share a websocket.

    const feeds = new Map();

    class Feed {
        constructor(uri) {
            this.uri = uri;
            this.elements = new Set();
            this.last = undefined;
            this.state = 'connecting';
            this.opened = 0;
            const told = (state) => {
                this.state = state;
                this.elements.forEach((element) => { element.dataset.connection = state; });
            };
            const options = {
                uri: uri,
                heartbeat_msg: from_json(script.heartbeat),
                connecting: () => told('connecting'),
                connected: () => {
                    told('connected');
                    this.opened += 1;
                    this.elements.forEach((element) => {
                        if (this.opened > 1 || element.was_away) {
                            element.reconnected();
                        }
                    });
                },
                disconnected: () => told('closed'),
                receive_message: (data) => {
                    this.last = data;
                    this.elements.forEach((element) => element.take(data));
                }
            };
            // Earlier versions of ws4redis.js tell of no gaps.
            if (self.WS4Redis.connect) {
                options.gap = () => this.elements.forEach((element) => element.missed());
            }
            this.socket = new self.WS4Redis(options);
        }

        add(element) {
            this.elements.add(element);
            element.dataset.connection = this.state;
            if (this.last !== undefined && element.constructor.wants_last) {
                element.take(this.last);
            }
            if (element.was_away && this.state === 'connected') {
                element.reconnected();
            }
        }

        remove(element) {
            this.elements.delete(element);
            if (this.elements.size === 0) {
                feeds.delete(this.uri);
                this.socket.close();
            }
        }
    }

    class LiveElement extends HTMLElement {
        static get observedAttributes() { return ['facility', 'audience']; }

        /** A newcomer is given the message that came last, as the server does with kept ones. */
        static get wants_last() { return true; }

        get default_facility() { return null; }

        get default_audience() { return 'broadcast'; }

        connectedCallback() {
            this.prepare();
            this.is_here = true;
            this.join();
        }

        disconnectedCallback() {
            this.is_here = false;
            this.leave();
        }

        attributeChangedCallback(name, before, after) {
            if (this.is_here && before !== after) {
                this.leave();
                this.join();
            }
        }

        join() {
            try {
                const uri = this.address();
                const feed = feeds.get(uri) || new Feed(uri);
                feeds.set(uri, feed);
                this.feed = feed;
                feed.add(this);
            } catch (error) {
                this.complain(error.message);
            }
        }

        leave() {
            if (this.feed) {
                this.feed.remove(this);
                this.feed = null;
            }
        }

        address() {
            const facility = this.getAttribute('facility') || this.default_facility;
            if (!facility) {
                throw new Error(this.localName + ' needs the attribute facility');
            }
            if (!self.WS4Redis) {
                throw new Error('ws4redis.js is not loaded');
            }
            const audience = this.getAttribute('audience') || this.default_audience;
            const since = this.getAttribute('since');
            const path = facility.split('/').map(encodeURIComponent).join('/');
            return (script.uri || '/ws/') + path + '?subscribe-' + encodeURIComponent(audience) +
                (since ? '&since=' + encodeURIComponent(since) : '');
        }

        /** Take a message; whatever it is, the element goes on. */
        take(data) {
            try {
                this.receive(data);
                delete this.dataset.error;
            } catch (error) {
                this.complain(words.unreadable, error);
            }
        }

        complain(text, error) {
            this.dataset.error = text;
            const detail = {message: error ? error.message : text};
            this.dispatchEvent(new CustomEvent('ws4redis-error', {bubbles: true, detail: detail}));
        }

        prepare() {}

        reconnected() {}

        missed() {}
    }

    function record_in(data, type) {
        const record = JSON.parse(data);
        if (record === null || typeof record !== 'object' || typeof record.type !== 'string') {
            throw new TypeError('no object with a type');
        }
        return record.type === type ? record : null;
    }

    function is_count(value) {
        return typeof value === 'number' && value >= 0 && isFinite(value);
    }

    function make(name, class_name, parent) {
        const element = document.createElement(name);
        element.className = class_name;
        parent.append(element);
        return element;
    }

    /** 75 → "1:15" */
    function duration(seconds) {
        const rest = Math.ceil(seconds);
        const parts = [Math.floor(rest / 3600), Math.floor(rest / 60) % 60, rest % 60];
        if (rest < 60) {
            return rest + ' s';
        }
        return (parts[0] ? parts : parts.slice(1)).map(
            (part, place) => (place ? String(part).padStart(2, '0') : String(part))
        ).join(':');
    }

    class ProgressElement extends LiveElement {
        prepare() {
            if (!this.bar) {
                this.bar = make('progress', 'ws4redis-bar', this);
                this.bar.setAttribute('aria-label', this.getAttribute('label') || 'Progress');
                this.told = make('span', 'ws4redis-told', this);
                this.told.textContent = words.waiting;
                this.dataset.state = 'waiting';
            }
            this.timer = setInterval(() => this.tick(), 1000);
        }

        disconnectedCallback() {
            super.disconnectedCallback();
            clearInterval(this.timer);
        }

        receive(data) {
            const news = record_in(data, 'progress');
            if (news === null) {
                return;
            }
            const total_is_fine = news.total === null || is_count(news.total);
            if (!is_count(news.done) || !total_is_fine ||
                    ['running', 'done', 'failed', 'stopped'].indexOf(news.state) === -1) {
                throw new TypeError('no progress');
            }
            const changed = this.dataset.state !== news.state;
            this.news = news;
            // The clocks of server and browser may differ, so a late-comer is told how old it is.
            this.since = Date.now();
            this.dataset.state = news.state;
            this.show();
            if (changed && news.state !== 'running') {
                this.dispatchEvent(new CustomEvent('ws4redis-end', {bubbles: true, detail: news}));
            }
        }

        show() {
            const news = this.news;
            const parts = [];
            if (news.total === null) {
                this.bar.removeAttribute('value');
                parts.push(news.done.toLocaleString());
            } else {
                // Nothing to do: all is done.
                const part = news.total === 0 ? 1 : Math.min(news.done / news.total, 1);
                this.bar.value = part;
                // Nobody believes in 100 % that go on.
                parts.push((news.state === 'done' ? 100 : Math.floor(part * 100)) + ' %');
            }
            if (news.state !== 'running') {
                this.bar.value = news.state === 'done' ? 1 : this.bar.value;
                parts.push(words[news.state]);
            } else {
                if (is_count(news.rate) && news.rate > 0) {
                    const rate = news.rate < 10 ? news.rate.toFixed(1) : Math.round(news.rate);
                    parts.push(rate.toLocaleString() + '/s');
                }
                if (is_count(news.left)) {
                    const elapsed = (Date.now() - this.since) / 1000;
                    parts.push(duration(Math.max(news.left - elapsed, 1)) + ' ' + words.left);
                }
            }
            if (typeof news.text === 'string' && news.text !== '') {
                parts.push(news.text);
            }
            this.told.textContent = parts.join(' · ');
        }

        /** Count the remaining time down, and say when nothing was heard for long. */
        tick() {
            if (!this.news || this.news.state !== 'running') {
                return;
            }
            const silent = (Date.now() - this.since) / 1000;
            if (silent > (Number(this.getAttribute('stale')) || STALE_SECONDS)) {
                this.dataset.state = 'silent';
                this.told.textContent = words.silent + ' ' + duration(silent);
            } else {
                this.show();
            }
        }
    }

    // Live HTML

    const FORBIDDEN = ['script', 'iframe', 'fencedframe', 'object', 'embed', 'base', 'meta', 'link',
        'style', 'animate', 'animatemotion', 'animatetransform', 'set',
        'turbo-stream-source'];
    const WITH_URL = ['href', 'xlink:href', 'src', 'action', 'formaction'];
    const SAFE_URL = new RegExp('^(?:(?:https?|mailto|tel):|data:image/(?:png|gif|jpeg|webp);|' +
        '[^a-z]|[^:]*(?:[/?#]|$))', 'i');

    const of_element = Element.prototype;

    /** Take out whatever could run code, from nodes that are in no document yet. */
    function clean(root) {
        root.querySelectorAll('*').forEach((element) => {
            if (FORBIDDEN.indexOf(element.localName.toLowerCase()) !== -1) {
                element.remove();
                return;
            }
            // A form's own names are hidden by its fields: <input name="getAttribute">.
            of_element.getAttributeNames.call(element).forEach((name) => {
                // Browsers ignore control characters and white space in URLs.
                const value = of_element.getAttribute.call(element, name).replace(/[\0-\x20]/g, '');
                if (/^(?:on|(?:data-)?hx-on|srcdoc$)/.test(name) ||
                        (WITH_URL.indexOf(name) !== -1 && !SAFE_URL.test(value))) {
                    of_element.removeAttribute.call(element, name);
                }
            });
            if (element.content instanceof DocumentFragment) {
                clean(element.content);
            }
        });
        return root;
    }

    function parsed(html) {
        const template = document.createElement('template');
        template.innerHTML = html;
        return clean(template.content);
    }

    class HtmlElement extends LiveElement {
        // Fragments are steps from one state to the next: nobody takes one twice.
        static get wants_last() { return false; }

        prepare() {
            this.waiting = this.waiting || [];
            if (!this.hasAttribute('aria-live')) {
                this.setAttribute('aria-live', 'polite');
            }
        }

        receive(data) {
            if (typeof data !== 'string') {
                throw new TypeError('binary data is no HTML');
            }
            this.waiting.push(data);
            this.schedule();
        }

        /** Apply all that comes until the browser paints at once. */
        schedule() {
            if (this.scheduled || this.loading) {
                return;
            }
            this.scheduled = true;
            const flush = () => {
                if (this.scheduled) {
                    this.scheduled = false;
                    this.flush();
                }
            };
            requestAnimationFrame(flush);
            // A hidden tab is not painted.
            setTimeout(flush, HIDDEN_BATCH_MS);
        }

        flush() {
            if (this.loading) {
                return;
            }
            this.waiting.splice(0).forEach((html) => {
                try {
                    this.apply(parsed(html));
                } catch (error) {
                    this.complain(words.unreadable, error);
                }
            });
            this.dispatchEvent(new CustomEvent('ws4redis-rendered', {bubbles: true}));
        }

        apply(fragment) {
            const streams = Array.from(fragment.children).filter(
                (element) => element.localName === 'turbo-stream'
            );
            if (streams.length === 0) {
                this.change(this.getAttribute('mode') || 'update', this, fragment);
                return;
            }
            streams.forEach((stream) => {
                const id = stream.getAttribute('target');
                // Never outside of this element, whatever the message names.
                const target = !id || id === this.id
                    ? this : this.querySelector('#' + CSS.escape(id));
                const template = stream.querySelector('template');
                const content = template ? template.content : document.createDocumentFragment();
                this.change(stream.getAttribute('action'), target, content);
            });
        }

        change(action, target, content) {
            // Turbo would take those that it finds in the page, with targets anywhere.
            content.querySelectorAll('turbo-stream').forEach((stream) => stream.remove());
            const actions = {
                append: () => { this.without_twins(target, content); target.append(content); },
                prepend: () => { this.without_twins(target, content); target.prepend(content); },
                update: () => target.replaceChildren(content),
                replace: () => (target === this
                    ? target.replaceChildren(content) : target.replaceWith(content)),
                remove: () => (target === this ? target.replaceChildren() : target.remove())
            };
            if (!Object.prototype.hasOwnProperty.call(actions, action)) {
                throw new TypeError('there is no action ' + action);
            }
            // It may be on another page of a list.
            if (target !== null) {
                actions[action]();
            }
        }

        /** Remove children with the ids of newcomers, so that nothing is there twice. */
        without_twins(target, content) {
            Array.from(content.children).forEach((child) => {
                const twin = child.id && target.querySelector(':scope > #' + CSS.escape(child.id));
                if (twin) {
                    twin.remove();
                }
            });
        }

        leave() {
            // Should it be put back, what was published meanwhile is to be loaded.
            if (this.feed) {
                this.was_away = true;
                this.removeAttribute('since');
            }
            super.leave();
        }

        reconnected() {
            this.was_away = false;
            // With a position, nothing is missed without being told.
            if (!this.hasAttribute('since')) {
                this.missed();
            }
        }

        /** Load the whole content from `src`; what is published meanwhile is applied after it. */
        missed() {
            this.dispatchEvent(new CustomEvent('ws4redis-gap', {bubbles: true}));
            this.load();
        }

        load() {
            const src = this.getAttribute('src');
            // What is loading may be older.
            this.outdated = this.loading;
            if (!src || this.loading) {
                return;
            }
            this.loading = true;
            const signal = AbortSignal.timeout ? AbortSignal.timeout(FETCH_TIMEOUT_MS) : undefined;
            fetch(src, {credentials: 'same-origin', signal: signal}).then((response) => {
                if (!response.ok) {
                    throw new Error(src + ' answers ' + response.status);
                }
                return response.text();
            }).then((html) => {
                this.change('update', this, parsed(html));
            }).catch((error) => {
                this.complain(words.lost, error);
            }).then(() => {
                this.loading = false;
                if (this.outdated) {
                    this.load();
                }
                this.flush();
            });
        }
    }

    // Notifications

    class NotificationElement extends LiveElement {
        get default_facility() { return 'notifications'; }

        get default_audience() { return 'user'; }
    }

    class BadgeElement extends NotificationElement {
        prepare() {
            this.setAttribute('role', 'status');
            if (!this.dataset.state) {
                this.show(Number(this.getAttribute('count')) || 0);
            }
        }

        receive(data) {
            const news = record_in(data, 'unread');
            if (news !== null) {
                if (!is_count(news.unread)) {
                    throw new TypeError('no count');
                }
                this.show(news.unread);
            }
        }

        show(count) {
            this.dataset.state = count ? 'unread' : 'none';
            this.textContent = count > 99 ? '99+' : String(count);
            this.setAttribute('aria-label', count + ' ' + words.unread);
            this.hidden = count === 0;
        }
    }

    class ToastsElement extends NotificationElement {
        static get wants_last() { return false; }

        prepare() {
            this.setAttribute('role', 'log');
            this.setAttribute('aria-live', 'polite');
        }

        receive(data) {
            const news = record_in(data, 'notification');
            if (news === null) {
                return;
            }
            if (typeof news.text !== 'string') {
                throw new TypeError('no text');
            }
            const toast = make('div', 'ws4redis-toast', this);
            toast.dataset.level = typeof news.level === 'string' ? news.level : 'info';
            if (typeof news.title === 'string' && news.title) {
                make('strong', 'ws4redis-title', toast).textContent = news.title;
            }
            const is_link = typeof news.url === 'string' && /^(?:https?:\/\/|\/)/.test(news.url);
            const text = make(is_link ? 'a' : 'span', 'ws4redis-text', toast);
            text.textContent = news.text;
            if (is_link) {
                text.href = news.url;
            }
            const button = make('button', 'ws4redis-close', toast);
            button.type = 'button';
            button.textContent = '×';
            button.setAttribute('aria-label', words.close);
            button.onclick = () => toast.remove();
            this.fade(toast);
            while (this.children.length > MAX_TOASTS) {
                this.firstElementChild.remove();
            }
        }

        /** Remove a toast after a while, but not while somebody reads it. */
        fade(toast) {
            const given = Number(this.getAttribute('seconds'));
            const seconds = given > 0 ? Math.min(given, LONGEST_TOAST_SECONDS) : TOAST_SECONDS;
            setTimeout(() => {
                if (toast.matches(':hover, :focus-within')) {
                    this.fade(toast);
                } else {
                    toast.remove();
                }
            }, seconds * 1000);
        }
    }

    Object.entries({
        'ws4redis-progress': ProgressElement, 'ws4redis-html': HtmlElement,
        'ws4redis-badge': BadgeElement, 'ws4redis-toasts': ToastsElement
    }).forEach(([name, element]) => {
        if (!customElements.get(name)) {
            customElements.define(name, element);
        }
    });
}());
