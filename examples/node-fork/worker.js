// The half of a program that child_process.fork() starts and sends its server to. Below shepherd it is
// started and sent the socket by shepherd, with nothing changed:
//
//     shepherd run -n 4 -p 3000 --node-fork -- node worker.js
const http = require('node:http');

const server = http.createServer((request, response) => {
  response.end(`v1 ${process.pid} ${process.ppid}\n`);
});

process.on('message', (message, handle) => {
  if (message === 'server') {
    handle.on('connection', (socket) => server.emit('connection', socket));
  }
});
