// The inbox. Everything from mail goes into the page as text; its HTML only into a frame that
// may run and load nothing.
'use strict';

const REFRESH_MS = 2000;
const PAGE_SIZE = 50;
const byId = (id) => document.getElementById(id);
const state = { messages: [], next: null, pages: 1, opened: null, failed: false };

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

async function ask(path) {
  const answer = await fetch(path, { headers: { Accept: 'application/json' }, cache: 'no-store' });
  if (!answer.ok) throw Object.assign(new Error(answer.statusText), { status: answer.status });
  return answer.json();
}

function time(text) {
  const when = new Date(text);
  const today = when.toDateString() === new Date().toDateString();
  const short = today ? when.toLocaleTimeString() : when.toLocaleDateString();
  return make('time', { dateTime: text, title: when.toLocaleString(), className: 'quiet small' }, short);
}

function size(octets) {
  if (octets < 1000) return `${octets} bytes`;
  return octets < 1e6 ? `${(octets / 1e3).toFixed(1)} kB` : `${(octets / 1e6).toFixed(1)} MB`;
}

// Authentication-Results (RFC 8601): `host; method=result (comment) property=value; ...`.
function verdicts(text) {
  let depth = 0;
  const pieces = [''];
  for (const c of text) {
    if (c === '(') depth += 1;
    if (c === ')') depth -= 1;
    if (c === ';' && depth === 0) pieces.push('');
    else pieces[pieces.length - 1] += c;
  }
  return pieces.slice(1).map((piece) => {
    const [, method, result, rest] = /^\s*([a-z]+)=(\w+)\s*(.*)$/s.exec(piece) ?? [null, piece.trim(), '', ''];
    const kind = result === 'pass' ? 'good' : ['fail', 'permerror'].includes(result) ? 'bad' : '';
    return make('span', { className: `badge ${kind}`, title: rest }, `${method.toUpperCase()} ${result}`);
  });
}

function row(message) {
  const link = make('a', { href: `#${message.id}`, id: `row-${message.id}` },
    make('div', { className: 'row' },
      make('span', { className: 'cut' }, message.from || message.mail_from || '(no author)'),
      time(message.received_at)),
    make('div', { className: 'cut subject' }, message.subject || '(no subject)'),
    make('div', { className: 'cut quiet small' }, `to ${message.recipients.join(', ')}`));
  if (message.id === state.opened) link.setAttribute('aria-current', 'true');
  return make('li', {}, link);
}

function showList() {
  const focused = document.activeElement?.id;
  byId('list').replaceChildren(...state.messages.map(row));
  if (focused?.startsWith('row-')) byId(focused)?.focus();
  const searching = byId('query').value.trim() !== '';
  byId('empty').hidden = state.messages.length > 0;
  byId('empty').textContent = searching ? 'No message matches.' : 'Nothing yet. Send a message and it appears here.';
  byId('more').hidden = state.next === null;
}

async function refresh() {
  const query = new URLSearchParams({ limit: PAGE_SIZE });
  const wanted = byId('query').value.trim();
  if (wanted) query.set('q', wanted);
  try {
    const messages = [];
    let next = null;
    for (let page = 0; page < state.pages; page += 1) {
      if (next) query.set('after', next);
      const answer = await ask(`inbox?${query}`);
      messages.push(...answer.data);
      next = answer.next;
      if (!next) break;
    }
    if (wanted !== byId('query').value.trim()) return;
    const ids = (list) => list.map((message) => message.id).join();
    const changed = ids(messages) !== ids(state.messages) || next !== state.next || state.first !== false;
    Object.assign(state, { messages, next, first: false });
    if (changed) showList();
    const count = messages.length;
    byId('state').textContent = `${count}${next ? '+' : ''} ${count === 1 ? 'message' : 'messages'}`;
  } catch (error) {
    byId('state').textContent = error.status === 404
      ? 'This inbox is closed: open the address with its token again'
      : 'The platform does not answer; trying again';
  }
}

function field(name, value) {
  return value ? [make('dt', {}, name), make('dd', {}, value)] : [];
}

function views(message) {
  const path = `inbox/messages/${encodeURIComponent(message.id)}`;
  const pre = (text) => () => make('pre', { tabIndex: 0 }, text);
  const all = [];
  if (message.has_html) {
    all.push(['HTML', () => make('iframe', { sandbox: '', title: 'HTML of the message', referrerPolicy: 'no-referrer', src: `${path}/html` })]);
  }
  if (message.text !== null) all.push(['Text', pre(message.text)]);
  all.push(['Headers', pre(message.headers)]);
  all.push(['Source', () => {
    const box = make('pre', { tabIndex: 0 }, 'Reading…');
    fetch(`${path}/raw`).then((answer) => answer.text()).then((text) => { box.textContent = text.slice(0, 1e6); });
    return box;
  }]);
  return all;
}

function tabs(message) {
  const panel = make('div', { style: 'display: contents', role: 'tabpanel' });
  const choose = (button, build) => {
    for (const other of bar.querySelectorAll('button')) other.setAttribute('aria-selected', other === button);
    panel.replaceChildren(build());
  };
  const buttons = views(message).map(([name, build]) => {
    const button = make('button', { type: 'button', role: 'tab' }, name);
    button.addEventListener('click', () => choose(button, build));
    return button;
  });
  const path = `inbox/messages/${encodeURIComponent(message.id)}/raw`;
  const bar = make('div', { className: 'tabs', role: 'tablist' }, ...buttons,
    make('a', { href: path, download: `${message.id}.eml`, className: 'push small' }, 'Download .eml'));
  buttons[0].click();
  return [bar, panel];
}

function showMessage(message) {
  const path = `inbox/messages/${encodeURIComponent(message.id)}/attachments`;
  const files = message.attachments.map((file, index) => make('a', { href: `${path}/${index}`, download: file.name, title: file.media_type },
    make('span', { className: 'cut' }, file.name), make('span', { className: 'quiet' }, size(file.size))));
  byId('message').replaceChildren(
    make('a', { href: '#', className: 'back' }, '← All messages'),
    make('h2', {}, message.subject || '(no subject)'),
    make('dl', {},
      ...field('From', message.from), ...field('To', message.to),
      ...field('Recipient', message.recipients.join(', ')),
      ...field('Return path', message.mail_from || '<> (nobody)'),
      ...field('Received', `${new Date(message.received_at).toLocaleString()} from ${message.helo}, ${size(message.size)}`),
      ...field('Message', message.message_id)),
    make('div', { className: 'verdicts' }, ...verdicts(message.authentication_results)),
    ...(files.length ? [make('div', { className: 'files' }, ...files)] : []),
    ...tabs(message));
}

async function open() {
  const id = location.hash.slice(1);
  state.opened = id || null;
  document.body.classList.toggle('reading', id !== '');
  byId('welcome').hidden = id !== '';
  byId('message').hidden = id === '';
  showList();
  if (!id) return;
  try {
    const message = await ask(`inbox/messages/${encodeURIComponent(id)}`);
    if (state.opened === id) showMessage(message);
  } catch {
    byId('message').replaceChildren(make('a', { href: '#', className: 'back' }, '← All messages'),
      make('p', { className: 'quiet' }, 'This message is no longer here.'));
  }
}

function step(by) {
  const at = state.messages.findIndex((message) => message.id === state.opened);
  const message = state.messages[at < 0 ? 0 : at + by];
  if (!message) return;
  location.hash = message.id;
  byId(`row-${message.id}`)?.scrollIntoView({ block: 'nearest' });
}

document.addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === 'Escape') {
    document.activeElement?.blur();
    location.hash = '';
  } else if (event.target instanceof HTMLInputElement) {
    return;
  } else if (event.key === 'j') step(1);
  else if (event.key === 'k') step(-1);
  else if (event.key === '/') {
    event.preventDefault();
    byId('query').focus();
  }
});
byId('search').addEventListener('submit', (event) => { event.preventDefault(); refresh(); });
byId('query').addEventListener('input', () => { state.pages = 1; refresh(); });
byId('more').addEventListener('click', () => { state.pages += 1; refresh(); });
window.addEventListener('hashchange', open);

async function keepFresh() {
  if (!document.hidden) await refresh();
  setTimeout(keepFresh, REFRESH_MS);
}
keepFresh().then(open);
