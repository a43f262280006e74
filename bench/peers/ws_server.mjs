// Node `ws`: what comes on /pub goes to all on /sub, everything else comes back.
import { WebSocketServer } from 'ws';

const server = new WebSocketServer({ port: Number(process.argv[2]), host: '127.0.0.1', perMessageDeflate: false, backlog: 4096 });
const subscribers = new Set();

server.on('connection', (socket, request) => {
  if (request.url === '/sub') {
    subscribers.add(socket);
    socket.on('close', () => subscribers.delete(socket));
  }
  socket.on('message', (message, binary) => {
    if (request.url === '/pub') for (const subscriber of subscribers) subscriber.send(message, { binary });
    else socket.send(message, { binary });
  });
});
