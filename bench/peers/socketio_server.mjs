// Socket.IO: connections, and nothing else.
import { createServer } from 'node:http';
import { Server } from 'socket.io';

const http = createServer();
new Server(http, { transports: ['websocket'], serveClient: false });
http.listen({ port: Number(process.argv[2]), host: '127.0.0.1', backlog: 4096 });
