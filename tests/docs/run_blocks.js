'use strict';
// Runs blocks of JavaScript, each by itself, with the real ws4redis.js and Centrifuge's client and
// with stand-ins for what the page or the project has. Run with: the folder of packages,
// ws4redis.js, and a file with the blocks, as JSON of [name, source]. Prints those that throw.
const [packages, script, file] = process.argv.slice(2);
const {JSDOM} = require(packages + '/jsdom');
const typescript = require(packages + '/typescript');

const dom = new JSDOM('<!doctype html><main id="chat" data-websocket-uri="/ws/chat" data-heartbeat="null"></main>', {url: 'http://127.0.0.1:1/'});
Object.assign(globalThis, {self: dom.window, window: dom.window, document: dom.window.document});
// Nothing is there to connect to; what is tested is what the code calls.
globalThis.WebSocket = require(packages + '/ws');
const WS4Redis = require(script);
self.WS4Redis = globalThis.WS4Redis = WS4Redis;
require(script.replace('ws4redis.js', 'ws4redis-shared.js'));
const centrifuge = require(packages + '/centrifuge');

/** Something that may be called, constructed, looked into and set, and gives more of the same. */
function stand_in() {
    return new Proxy(function () {}, {
        get: (target, name) => {
            if (name === Symbol.iterator)
                return function* () {};
            return name === Symbol.toPrimitive ? () => 'text' : name === 'then' ? undefined : stand_in();
        },
        set: () => true,
        apply: stand_in,
        construct: stand_in
    });
}

function scope_of_a_page() {
    const known = {
        WS4Redis, Centrifuge: centrifuge.Centrifuge, document: dom.window.document,
        location: stand_in(), EventSource: stand_in()
    };
    // What blocks of another page would have defined.
    known.centrifuge = new centrifuge.Centrifuge('ws://127.0.0.1:1/');
    known.page = WS4Redis.connect({uri: 'ws://127.0.0.1:1/'});
    const names = Object.assign(Object.create(null), known);
    return new Proxy(names, {
        has: (target, name) => typeof name === 'string' && (name in names || !(name in globalThis)),
        get: (target, name) => name in names ? names[name]
            : name === Symbol.unscopables ? undefined : stand_in()
    });
}

function load(name) {
    return name === 'centrifuge' ? centrifuge : stand_in();
}

process.on('unhandledRejection', () => {});
const failed = [];
for (const [name, source] of JSON.parse(require('fs').readFileSync(file, 'utf8'))) {
    const {outputText} = typescript.transpileModule(source, {compilerOptions: {
        module: typescript.ModuleKind.CommonJS, target: typescript.ScriptTarget.ES2022
    }});
    const code = outputText.replace('"use strict";', '');
    try {
        new Function('scope', 'require', 'exports', `with (scope) { (() => { ${code}\n })(); }`)(
            scope_of_a_page(), load, {}
        );
    } catch (error) {
        failed.push(`${name}: ${error.message}`);
    }
}
process.stdout.write(JSON.stringify(failed), () => process.exit(0));
