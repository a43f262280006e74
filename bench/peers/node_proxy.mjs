// A bare proxy in Node: node:http in front, undici's stream() behind, nothing else.
//   node node_proxy.mjs PORT UPSTREAM-URL
import http from 'node:http';
import { Pool } from 'undici';

const [port, upstream] = process.argv.slice(2);
const pool = new Pool(upstream, { connections: 100, pipelining: 1 });
const hopByHop = new Set([
  'connection', 'keep-alive', 'proxy-authenticate', 'proxy-authorization', 'proxy-connection',
  'te', 'trailer', 'transfer-encoding', 'upgrade',
]);

function forwarded(raw, drop) {
  const kept = [];
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i].toString().toLowerCase();
    if (!hopByHop.has(name) && name !== drop) kept.push(raw[i].toString(), raw[i + 1].toString());
  }
  return kept;
}

const server = http.createServer((request, response) => {
  const headers = forwarded(request.rawHeaders, 'host');
  headers.push('x-forwarded-for', request.socket.remoteAddress);
  const hasBody = 'content-length' in request.headers || 'transfer-encoding' in request.headers;
  const options = { path: request.url, method: request.method, headers, body: hasBody ? request : null, opaque: response };
  pool.stream(options, ({ statusCode, headers, opaque }) => {
    for (const name of hopByHop) delete headers[name];
    opaque.writeHead(statusCode, headers);
    return opaque;
  }).catch(() => {
    if (!response.headersSent) response.writeHead(502);
    response.end();
  });
});
server.keepAliveTimeout = 75000;
server.listen({ port: Number(port), host: '127.0.0.1', backlog: 4096 });
process.on('SIGTERM', () => process.exit(0));
