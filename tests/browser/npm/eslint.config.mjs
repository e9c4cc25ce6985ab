import js from '@eslint/js';

const browser = ['AbortController', 'AbortSignal', 'Blob', 'CSS', 'CloseEvent', 'CustomEvent',
    'DocumentFragment', 'Element', 'EventSource', 'HTMLElement', 'URL', 'URLSearchParams', 'WebSocket', 'atob', 'btoa',
    'SharedWorker', 'SharedWorkerGlobalScope', 'clearInterval', 'clearTimeout', 'console',
    'customElements', 'document', 'fetch', 'FormData', 'navigator', 'performance', 'reportError',
    'requestAnimationFrame', 'self', 'setInterval', 'setTimeout', 'window'];
const readonly = (names) => Object.fromEntries(names.map((name) => [name, 'readonly']));

export default [
    js.configs.recommended,
    {
        // Scripts as browsers load them: no build step, no module.
        languageOptions: {
            ecmaVersion: 2017,
            sourceType: 'script',
            globals: {...readonly(browser), module: 'writable', WS4Redis: 'readonly'},
        },
        linterOptions: {reportUnusedDisableDirectives: 'error'},
        rules: {
            'curly': 'error',
            'eqeqeq': 'error',
            'no-implied-eval': 'error',
            'no-shadow': 'error',
            // The syntax of ES2017 has no `catch` without a name.
            'no-unused-vars': ['error', {caughtErrors: 'none'}],
            // Callbacks run later than what stands below them.
            'no-use-before-define': ['error', {functions: false, variables: false}],
            'no-var': 'error',
            'prefer-const': 'error',
            'semi': 'error',
            'strict': ['error', 'function'],
            'max-len': ['error', {code: 100}],
        },
    },
];
