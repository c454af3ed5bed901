'use strict';
// Both halves of what `capture` records: an ordinary cluster program whose primary starts the worker
// through the recorder. The worker tells by messages how far it is, so that nothing is timed.

const cluster = require('node:cluster');
const dgram = require('node:dgram');
const net = require('node:net');
const tls = require('node:tls');

const scenario = process.argv.at(-1);

// What the primary does when the worker says these words, and what the worker does first.
const primaries = {
  async listen(worker) {
    const taken = net.createServer().listen(0, '127.0.0.1');
    await once(taken, 'listening');
    worker.send({ taken: taken.address().port });
    const { port, path } = await said(worker, 'listening');
    for (const to of [port, port, path]) {
      await once(net.connect(to).resume(), 'close');
    }
    taken.close();
    worker.disconnect();
  },
  async tls(worker) {
    await said(worker, 'listening');
    worker.disconnect();
  },
  async udp(worker) {
    await said(worker, 'listening');
    worker.disconnect();
  },
  async messages(worker) {
    const server = net.createServer().listen(0, '127.0.0.1');
    const datagrams = dgram.createSocket('udp4').bind(0, '127.0.0.1');
    await Promise.all([server, datagrams].map((socket) => once(socket, 'listening')));
    worker.send('server', server);
    worker.send('udp', datagrams);
    const accepted = once(server, 'connection');
    const client = once(net.connect(server.address().port).resume(), 'close');
    const [socket] = await accepted;
    worker.send(['socket', '\u4f60\u597d \u2028 \u{1f411} \n \ud800'], socket);
    const [, returned] = await received(worker, (message) => message === 'back');
    const closed = said(worker, 'closed');
    returned.end('bye');
    await Promise.all([client, closed]);
    for (const socket of [server, datagrams]) socket.close();
    worker.disconnect();
  },
  async leave(worker) {
    await said(worker, 'listening');
    worker.send('leave');
  },
};

const workers = {
  async listen() {
    const [{ taken }] = await once(process, 'message');
    const answer = (socket) => socket.end('hello');
    const first = await listening(net.createServer(answer).listen(0));
    const { port } = first.address();
    const servers = [
      await listening(net.createServer(answer).listen(0)),
      await listening(net.createServer(answer).listen(0, '127.0.0.1', 77)),
      await listening(net.createServer(answer).listen({ port: 0, host: '::1', ipv6Only: true })),
      await listening(net.createServer(answer).listen({ path: 'app.sock', readableAll: true })),
    ];
    const again = net.createServer(answer).listen(servers[0].address().port);
    again.on('error', () => {});
    await failed(net.createServer(answer).listen(taken, '127.0.0.1'));
    await failed(net.createServer(answer).listen({ fd: 99 }));
    process.send({ listening: true, port, path: servers[3].address() });
    servers[0].close();
  },
  async tls() {
    const server = await listening(tls.createServer({}).listen(0));
    await failed(tls.createServer({}).listen(server.address().port, '127.0.0.1'));
    process.send('listening');
  },
  async udp() {
    const bound = (socket, ...where) => listening(socket.bind(...where));
    await bound(dgram.createSocket({ type: 'udp4', reuseAddr: true }), 0);
    await bound(dgram.createSocket({ type: 'udp6', ipv6Only: true }), 0, '::1');
    await bound(dgram.createSocket('udp4'));
    (await bound(dgram.createSocket('udp4'), 0, '127.0.0.1')).close();
    process.send('listening');
  },
  async messages() {
    process.on('message', (message, handle) => {
      if (Array.isArray(message)) {
        const own = net.createServer().listen({ port: 0, host: '127.0.0.1', exclusive: true });
        own.on('connection', (socket) => {
          process.send('back', socket);
          process.send({ cmd: 'NODE_', text: '\u4f60\u597d' });
          process.send(5);
          process.send(null);
          own.close(() => process.send('closed'));
        });
        own.on('listening', () => net.connect(own.address().port).on('data', () => {}));
        handle.end();
      } else {
        handle?.close();
      }
    });
  },
  async leave() {
    await listening(net.createServer().listen(0));
    process.send('listening');
    await received(process, (message) => message === 'leave');
    cluster.worker.disconnect();
  },
};

function once(emitter, event) {
  return new Promise((resolve) => emitter.once(event, (...values) => resolve(values)));
}

async function listening(server) {
  await once(server, 'listening');
  return server;
}

async function failed(server) {
  await once(server, 'error');
}

function received(emitter, is) {
  return new Promise((resolve) => {
    emitter.on('message', (message, handle) => is(message) && resolve([message, handle]));
  });
}

// What the worker tells when it says this word, or an object with it.
async function said(worker, word) {
  const [message] = await received(worker, (message) => message === word || message?.[word]);
  return message;
}

if (cluster.isPrimary) {
  process.execPath = process.env.PYTHON;
  cluster.setupPrimary({ exec: process.env.BETWEEN, execArgv: [], args: ['--between', scenario] });
  primaries[scenario](cluster.fork());
} else {
  workers[scenario]();
}
