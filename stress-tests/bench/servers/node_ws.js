// Node's `ws` with ioredis: one subscriber connection per process, a set of websockets per channel.
//
// Configured by the environment: PORT, REDIS_PORT, COMPRESSION.
'use strict';

const Redis = require('ioredis');
const { WebSocketServer } = require('ws');

const port = Number(process.env.REDIS_PORT);
const subscriber = new Redis(port, '127.0.0.1');
const publisher = new Redis(port, '127.0.0.1');
const audiences = new Map();

subscriber.on('message', (channel, message) => {
  for (const websocket of audiences.get(channel) || []) websocket.send(message);
});

const server = new WebSocketServer({
  host: '127.0.0.1',
  port: Number(process.env.PORT),
  backlog: 1024,
  // A message of 2 KB is to be compressed: `ws` leaves those under 1 KB alone.
  perMessageDeflate: process.env.COMPRESSION === '1',
});

server.on('connection', (websocket, request) => {
  const url = new URL(request.url, 'ws://localhost');
  const channel = 'broadcast:' + url.pathname.slice('/ws/'.length);
  websocket.on('error', () => {});
  if (url.pathname.startsWith('/handler/')) {
    websocket.on('message', (message, isBinary) => websocket.send(message, { binary: isBinary }));
    return;
  }
  if (url.searchParams.has('subscribe-broadcast')) {
    if (!audiences.has(channel)) {
      audiences.set(channel, new Set());
      subscriber.subscribe(channel);
    }
    audiences.get(channel).add(websocket);
    websocket.on('close', () => {
      const audience = audiences.get(channel);
      audience.delete(websocket);
      if (!audience.size) {
        audiences.delete(channel);
        subscriber.unsubscribe(channel);
      }
    });
  }
  if (url.searchParams.has('publish-broadcast')) {
    websocket.on('message', (message) => publisher.publish(channel, message));
  }
});
