// Bun's websockets, which are uWebSockets, with its topics and its own Redis client.
//
// Configured by the environment: PORT, REDIS_PORT, COMPRESSION.
import { RedisClient } from 'bun';

const url = `redis://127.0.0.1:${process.env.REDIS_PORT}`;
const subscriber = new RedisClient(url);
const publisher = new RedisClient(url);
const subscribed = new Set();

const server = Bun.serve({
  hostname: '127.0.0.1',
  port: Number(process.env.PORT),
  idleTimeout: 0,
  fetch(request, server) {
    const { pathname, searchParams } = new URL(request.url);
    const data = {
      channel: 'broadcast:' + pathname.slice('/ws/'.length),
      echoes: pathname.startsWith('/handler/'),
      subscribes: searchParams.has('subscribe-broadcast'),
      publishes: searchParams.has('publish-broadcast'),
    };
    if (!server.upgrade(request, { data })) return new Response('', { status: 400 });
  },
  websocket: {
    perMessageDeflate: process.env.COMPRESSION === '1',
    idleTimeout: 0,
    open(websocket) {
      const { channel, subscribes } = websocket.data;
      if (!subscribes) return;
      websocket.subscribe(channel);
      if (subscribed.has(channel)) return;
      subscribed.add(channel);
      subscriber.subscribe(channel, (message) => server.publish(channel, message, true));
    },
    message(websocket, message) {
      if (websocket.data.echoes) websocket.send(message);
      else if (websocket.data.publishes) publisher.publish(websocket.data.channel, message);
    },
  },
});
