// WS4Redis as an ES module: import WS4Redis from './ws4redis.mjs'; what it is, ws4redis.js tells.
import * as script from './ws4redis.js';

// Node gives a CommonJS module's exports; in browsers the script has made a global.
const WS4Redis = script.default || self.WS4Redis;

export default WS4Redis;
export {WS4Redis};
