#!/usr/bin/env node
'use strict';
// The shop's back office: GET / says what is in stock, POST /restock?apples=N adds to it.

const http = require('node:http');
const net = require('node:net');

// A line with a number to the agent, its answer back; see stock.py.
function changeStock(by) {
  return new Promise((resolve, reject) => {
    const agent = net.connect('stock.sock', () => agent.end(`${by}\n`));
    let answer = '';
    agent.setTimeout(5000, () => agent.destroy(new Error('the agent does not answer')));
    agent.on('data', (text) => (answer += text)).on('error', reject);
    agent.on('end', () => resolve(answer.trim()));
  });
}

const server = http.createServer(async (request, response) => {
  const url = new URL(request.url, 'http://admin');
  const apples = url.searchParams.get('apples') ?? '';
  const restocks = request.method === 'POST' && url.pathname === '/restock' && /^[0-9]{1,6}$/.test(apples);
  if (!restocks && (request.method !== 'GET' || url.pathname !== '/')) {
    response.writeHead(404).end('GET / or POST /restock?apples=N\n');
    return;
  }
  try {
    response.end(`${await changeStock(restocks ? apples : 0)} apples in stock\n`);
  } catch (error) {
    response.writeHead(503).end(`no stock: ${error.message}\n`);
  }
});

// Connections end with their answer, so that a stop has to wait for none that is idle.
server.prependListener('request', (_request, response) => response.setHeader('Connection', 'close'));
server.listen({ fd: 3 }); // LISTEN_FDS: the first socket is descriptor 3.
process.on('SIGTERM', () => server.close());
