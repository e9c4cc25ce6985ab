'use strict';
// Runs the modules of a page in Node, with the DOM of jsdom. Run with: the folder of packages,
// ws4redis.js, the origin of the server, and the modules' sources by name, as JSON.
const [packages, script, origin, sources] = process.argv.slice(2);
const {JSDOM} = require(packages + '/jsdom');
const typescript = require(packages + '/typescript');

const dom = new JSDOM('<!doctype html><div id="app"></div>', {url: origin});
Object.assign(globalThis, {
    window: dom.window, self: dom.window, document: dom.window.document,
    Element: dom.window.Element, SVGElement: dom.window.SVGElement, Node: dom.window.Node,
    WebSocket: require(packages + '/ws')
});
// Newer versions of Node have one that cannot be assigned.
Object.defineProperty(globalThis, 'navigator', {value: dom.window.navigator, configurable: true});
const modules = JSON.parse(sources);
const loaded = {'./ws4redis.mjs': {__esModule: true, default: require(script)}};
const options = {
    module: typescript.ModuleKind.CommonJS, target: typescript.ScriptTarget.ES2022,
    jsx: typescript.JsxEmit.ReactJSX, esModuleInterop: true
};

/** Load a module of the page, or a package. */
function load(name) {
    if (!name.startsWith('./'))
        return require(packages + '/' + name);
    if (!(name in loaded)) {
        const code = typescript.transpileModule(
            modules[name.slice(2)], {compilerOptions: options}
        ).outputText;
        loaded[name] = {};
        new Function('require', 'exports', code)(load, loaded[name]);
    }
    return loaded[name];
}

const app = document.getElementById('app');

/** Wait until the page shows what it should. */
async function shown(expected) {
    while (Array.from(app.querySelectorAll('li'), (item) => item.textContent).join() !== expected)
        await new Promise((resolve) => new dom.window.MutationObserver(resolve).observe(
            app, {childList: true, subtree: true, characterData: true}
        ));
}

void load, app, shown;
require('../clients/run_lines.js')((code) => eval(code));
