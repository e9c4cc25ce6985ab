'use strict';
// What preludes end with: take bodies of async functions from stdin, and answer what they return.

function told(error) {
    return {message: error.message, code: error.code};
}

/**
 * `evaluate` is an eval of the prelude's own, so that the code sees its names; `describe` says what
 * the test is told of what was thrown.
 */
module.exports = function run_lines(evaluate, describe = told) {
    const lines = require('readline').createInterface({input: process.stdin});
    lines.on('line', async function (line) {
        let answer;
        try {
            answer = {value: await evaluate('(async function () {' + JSON.parse(line) + '})')()};
        } catch (error) {
            answer = {thrown: describe(error)};
        }
        process.stdout.write(JSON.stringify(answer) + '\n');
    });
    lines.on('close', function () { process.exit(0); });
};
