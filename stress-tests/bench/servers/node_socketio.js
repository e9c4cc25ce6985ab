// Socket.IO with its Redis adapter; a facility is a room.
//
// Configured by the environment: PORT, REDIS_PORT, WORKERS, COMPRESSION. Clients use the websocket
// transport from the start, so a cluster needs no sticky sessions.
'use strict';

const cluster = require('node:cluster');
const http = require('node:http');
const Redis = require('ioredis');
const { Server } = require('socket.io');
const { createAdapter } = require('@socket.io/redis-adapter');

function serve() {
  const publisher = new Redis(Number(process.env.REDIS_PORT), '127.0.0.1');
  const subscriber = publisher.duplicate();
  const server = http.createServer();
  const io = new Server(server, {
    transports: ['websocket'],
    adapter: createAdapter(publisher, subscriber),
    perMessageDeflate: process.env.COMPRESSION === '1',
    // The load client answers pings, but none is due during a measurement.
    pingInterval: 600000,
  });

  io.on('connection', (socket) => {
    const query = socket.handshake.query;
    if ('subscribe-broadcast' in query) socket.join(query.facility);
    if ('publish-broadcast' in query) {
      socket.on('message', (message) => io.to(query.facility).emit('message', message));
    }
  });

  server.listen({ host: '127.0.0.1', port: Number(process.env.PORT), backlog: 1024 });
}

const workers = Number(process.env.WORKERS || 1);
if (cluster.isPrimary && workers > 1) {
  for (let i = 0; i < workers; i++) cluster.fork();
} else {
  serve();
}
