// Copyright The Nexus Webhooks Authors.
// SPDX-License-Identifier: Apache-2.0

// Receives webhooks and verifies them with the document's function: consumer.js EXAMPLE ROLE SECRET_FILE.
// It prints what consumer.py prints.
const fs = require('fs');
const http = require('http');

const [example, , secretFile] = process.argv.slice(2);
const verifyWebhook = new Function('require', fs.readFileSync(example, 'utf8') + '\nreturn verifyWebhook;')(require);

const server = http.createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const body = Buffer.concat(chunks).toString();
  const good = verifyWebhook(body, request.headers['x-nexus-timestamp'], request.headers['x-nexus-signature-256'],
    fs.readFileSync(secretFile, 'utf8'));
  const status = good ? 200 : 401;
  response.writeHead(status).end();
  const headers = {};
  for (let i = 0; i < request.rawHeaders.length; i += 2) headers[request.rawHeaders[i]] = request.rawHeaders[i + 1];
  console.log(JSON.stringify({headers, body, status}));
});
server.listen(0, '127.0.0.1', () => console.log(JSON.stringify({address: '127.0.0.1:' + server.address().port})));
