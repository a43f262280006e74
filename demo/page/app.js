// Lobby, table, board and chat. What is on the screen comes from channels; what is done goes by commands.
import { Live } from './live.js';

const $ = (id) => document.getElementById(id);
const PAGES = ['login', 'lobby', 'table'];

let me = null;
let live = null;
let table = null;
let open = [];
const tables = new Map();

const show = (page) => { for (const id of PAGES) $(id).hidden = id !== page; };
const fill = (list, items) => $(list).replaceChildren(...items);
const item = (text) => Object.assign(document.createElement('li'), { textContent: text });

let quiet;
function trouble(error) {
  $('trouble').textContent = error?.message ?? String(error);
  clearTimeout(quiet);
  quiet = setTimeout(() => { $('trouble').textContent = ''; }, 4000);
}

async function attempt(work) {
  try { return await work(); } catch (error) { trouble(error); return undefined; }
}

// Who.

function device() {
  const known = sessionStorage.getItem('device') ?? crypto.randomUUID();
  sessionStorage.setItem('device', known);
  return known;
}

$('who').onsubmit = (event) => {
  event.preventDefault();
  attempt(async () => {
    const answer = await fetch('/public/login', {
      method: 'POST', body: JSON.stringify({ name: $('name').value, device: device() }),
    });
    const said = await answer.json();
    if (!answer.ok) throw new Error(said.error ?? said.detail ?? 'that name will not do');
    me = said;
    live = new Live(said.token);
    live.subscribe('lobby', {
      state: (data) => { tables.clear(); (data.tables ?? []).forEach((one) => tables.set(one.tableId, one)); lobby(); },
      change: (one) => { tables.set(one.tableId, one); lobby(); },
      people: (names) => fill('here', names.map(item)),
      watched: true,
    });
    show('lobby');
  });
};

// Lobby.

const PHASES = { WAITING: 'waiting for players', PLAYING: 'playing', WON: 'over', DRAWN: 'a draw' };

function lobby() {
  fill('tables', [...tables.values()].map((one) => {
    const line = document.createElement('li');
    const button = document.createElement('button');
    const players = [one.red, one.yellow].filter(Boolean).join(' against ') || 'nobody yet';
    button.append(one.name, Object.assign(document.createElement('small'), { textContent: `${players}, ${PHASES[one.phase] ?? ''}` }));
    button.dataset.table = one.tableId;
    button.onclick = () => watch(one.tableId);
    line.append(button);
    return line;
  }));
}

$('create').onsubmit = (event) => {
  event.preventDefault();
  attempt(async () => {
    const made = await live.call('table.create', { table: { name: $('table-name').value } });
    $('table-name').value = '';
    watch(made.tableId);
  });
};

// Table.

function watch(id) {
  table = null;
  fill('chat', []);
  show('table');
  open = [
    live.subscribe(`table:${id}`, {
      state: draw, change: draw, watched: true,
      people: (names) => fill('watching', names.map(item)),
    }),
    live.subscribe(`chat:${id}`, { change: (said, from) => {
      $('chat').append(item(`${from?.connInfo?.name ?? 'somebody'}: ${said.text}`));
      $('chat').scrollTop = $('chat').scrollHeight;
    } }),
  ];
}

$('back').onclick = () => {
  open.forEach((subscription) => live.drop(subscription));
  open = [];
  show('lobby');
};

const seatOf = (one) => (one.red === me.user ? 'RED' : one.yellow === me.user ? 'YELLOW' : '');

function draw(now) {
  table = now;
  $('title').textContent = now.name;
  const mine = seatOf(now);
  const names = { RED: now.red, YELLOW: now.yellow };
  $('turn').textContent = now.phase === 'PLAYING' ? (now.turn === mine ? 'Your turn' : `${names[now.turn]} is to move`)
    : now.phase === 'WON' ? (now.winner === mine ? 'You won' : `${names[now.winner] ?? now.winner} won`)
      : now.phase === 'DRAWN' ? 'A draw' : 'Waiting for players';
  fill('board', now.rows.flatMap((row, y) => [...row].map((disc, x) => {
    const cell = document.createElement('button');
    cell.dataset.disc = disc;
    cell.dataset.column = x;
    cell.ariaLabel = `column ${x + 1}, row ${6 - y}: ${{ R: 'red', Y: 'yellow' }[disc] ?? 'empty'}`;
    cell.onclick = () => attempt(() => live.call('table.drop', { tableId: now.tableId, column: x }));
    return cell;
  })));
  fill('seats', ['RED', 'YELLOW'].map((seat) => {
    if (names[seat] || mine || now.phase !== 'WAITING') {
      return Object.assign(document.createElement('span'), { textContent: `${seat.toLowerCase()}: ${names[seat] ?? 'free'}  ` });
    }
    const button = Object.assign(document.createElement('button'), { type: 'button', textContent: `Sit as ${seat.toLowerCase()}` });
    button.dataset.seat = seat;
    button.onclick = () => attempt(() => live.call('table.sit', { tableId: now.tableId, seat }));
    return button;
  }));
}

$('say').onsubmit = (event) => {
  event.preventDefault();
  attempt(async () => {
    await live.sdk.publish(`chat:${table.tableId}`, { text: $('text').value });
    $('text').value = '';
  });
};
