#!/usr/bin/env node
'use strict';
// An HTTP/1.1 worker that can be replaced at any moment without a failed request. It takes the
// sockets it is given (LISTEN_FDS), and on SIGTERM stops as a lame duck: it accepts no more,
// answers what it accepted, and says goodbye to kept-alive clients in an answer instead of
// hanging up on them, as a plain server.close() would.
//
//     shepherd run -n 4 -p 8000 -- ./http.js     four of them, sharing one socket
//     systemd-socket-activate -l 8000 ./http.js  one, started by the first connection
//     ./http.js [ADDRESS:PORT]                   one, with a socket of its own (127.0.0.1:8000)
//
// Node has no unix datagram sockets of its own, so this worker cannot send READY=1: shepherd
// sees that it waits for connections on the socket, and takes that for ready.

const http = require('node:http');
const net = require('node:net');

const HEAD_BYTES_MAX = 8 * 1024; // A longer request head is answered with 400.
const IDLE_TIME_MAX = 60_000; // How long a connection may be silent.
const EXCHANGE_TIME_MAX = 10_000; // How long a client may take to send a head it has begun.
// How long a stopping worker waits for the first request of a connection. Clients do not retry
// a first request, so a connection that we accepted is not closed before it had its chance.
const FIRST_REQUEST_TIME_MAX = 5_000;
const GOODBYE_TIME_MAX = 500; // How long we listen, after our last answer, for a client to close.
const LAME_DUCK_TIME = Number(process.env.LAME_DUCK_MS ?? 1000);

let stopping = false;
const connections = new Map(); // From socket to what we know of the connection.

function answer(request, response) {
  const [path, query = ''] = request.url.split('?', 2);
  const [, ms] = /^ms=([0-9]{1,9})$/.exec(query) ?? [];
  if (request.method !== 'GET' || !['/', '/slow'].includes(path)) {
    send(request, response, 404, '');
  } else if (path === '/') {
    send(request, response, 200, body());
  } else if (ms !== undefined) {
    setTimeout(() => send(request, response, 200, body()), Math.min(Number(ms), 60_000));
  } else {
    response.setHeader('Connection', 'close');
    send(request, response, 400, '');
  }
}

function body() {
  const { VERSION = 'dev', SHEPHERD_SLOT = '-', SHEPHERD_GENERATION = '-' } = process.env;
  return `${VERSION} ${process.pid} ${SHEPHERD_SLOT} ${SHEPHERD_GENERATION}\n`;
}

function send(request, response, status, text) {
  if (stopping || request.httpVersion === '1.0') response.setHeader('Connection', 'close');
  response.writeHead(status, { 'Content-Type': 'text/plain', 'Content-Length': text.length });
  response.end(text);
}

/** Answers what is not HTTP with 400, after the answers that are still owed. */
function refuse(error, socket) {
  const { unanswered } = connections.get(socket) ?? {};
  if (!socket.writable) socket.destroy();
  else if (unanswered?.size) [...unanswered].at(-1).once('close', () => refuse(error, socket));
  else {
    socket.write('HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
    sayGoodbye(socket);
  }
}

/** Sends our end of file and lets the client close; destroys the connection if it does not. */
function sayGoodbye(socket) {
  socket.end();
  socket.resume();
  setTimeout(() => socket.destroy(), GOODBYE_TIME_MAX);
}

function createServer() {
  const server = http.createServer({
    maxHeaderSize: HEAD_BYTES_MAX,
    keepAliveTimeout: IDLE_TIME_MAX,
    headersTimeout: EXCHANGE_TIME_MAX,
    requireHostHeader: false,
  });
  server.on('connection', (socket) => {
    connections.set(socket, { unanswered: new Set(), answered: false, bytesRead: 0 });
    socket.on('close', () => connections.delete(socket));
  });
  server.on('request', (request, response) => {
    const { socket } = request;
    const connection = connections.get(socket);
    connection.unanswered.add(response);
    response.on('close', () => {
      connection.unanswered.delete(response);
      connection.answered = true;
      connection.bytesRead = socket.bytesRead;
    });
    answer(request, response);
  });
  server.on('clientError', refuse);
  server.on('connect', (request, socket) => refuse(null, socket));
  return server;
}

/** The sockets that were handed to this process, descriptors from 3 on, else one of our own. */
function addresses() {
  const { LISTEN_PID, LISTEN_FDS } = process.env;
  if (LISTEN_PID === String(process.pid)) {
    return Array.from({ length: Number(LISTEN_FDS) }, (_, n) => ({ fd: 3 + n }));
  }
  const address = process.argv[2] ?? '127.0.0.1:8000';
  const colon = address.lastIndexOf(':');
  const host = address.slice(0, colon).replace(/^\[|\]$/g, '');
  return [{ host, port: Number(address.slice(colon + 1)), backlog: 4096 }];
}

const servers = addresses().map((address) => createServer().listen(address));

function stop() {
  if (stopping) process.exit(1);
  stopping = true;
  // net's close, not http's: that one also hangs up on idle connections, and a request may be
  // on its way on any of them. It closes our copy of the socket only, so other workers go on
  // accepting from it.
  const closed = servers.map(
    (server) => new Promise((resolve) => net.Server.prototype.close.call(server, resolve)),
  );
  Promise.all(closed).then(() => process.exit(0));
  // Reading comes after the timers and before setImmediate: what has arrived is seen first.
  setTimeout(() => setImmediate(endLameDuck), LAME_DUCK_TIME);
}

/** Closes the connections that had an answer and are idle; the others still get theirs. */
function endLameDuck() {
  for (const [socket, connection] of connections) {
    // http.Server's closeIdleConnections() may also close connections without a request yet.
    if (!connection.answered && connection.unanswered.size === 0) {
      setTimeout(() => {
        if (!connection.answered && connection.unanswered.size === 0) sayGoodbye(socket);
      }, FIRST_REQUEST_TIME_MAX);
    } else if (connection.unanswered.size === 0 && socket.bytesRead === connection.bytesRead) {
      sayGoodbye(socket);
    }
  }
}

process.on('SIGTERM', stop);
process.on('SIGINT', stop);
