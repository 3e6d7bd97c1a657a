'use strict';
// Numbers that the page has a place for move there; whatever else changes has it drawn anew by the server.
const moving = new Set(['timestamp_seconds', 'age_seconds', 'count', 'abandoned_threads', 'utilization_percent',
  'sm_percent', 'memory_used_mib', 'power_watts', 'temperature_celsius']);
const shape = (view) => JSON.stringify(view, (key, value) =>
  typeof value === 'number' && moving.has(key) ? 0 : value);
const written = {
  percent: (n) => n.toFixed(0) + ' %',
  mib: (n) => n.toFixed(0) + ' MiB',
  watts: (n) => n.toFixed(0) + ' W',
  celsius: (n) => n.toFixed(0) + ' °C',
  seconds: (n) => n.toFixed(0) + ' s',
  count: (n) => n.toFixed(0),
};
const at = (view, path) => path.split('.').reduce((found, key) => found?.[key], view);
const main = () => document.querySelector('main');
const live = document.getElementById('live');
let drawn = null;

function move(view) {
  for (const element of document.querySelectorAll('[data-at]')) {
    const number = at(view, element.dataset.at);
    if (typeof number !== 'number') continue;
    if (element.localName === 'meter') element.value = number;
    else element.textContent = written[element.dataset.as](number);
  }
}

async function draw() {
  const answer = await fetch('/', { cache: 'no-store' });
  if (!answer.ok) throw new Error('the exporter answers ' + answer.status);
  const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
  const focused = document.activeElement?.id;
  const open = [...document.querySelectorAll('details[open]')].map((details) => details.id);
  main().replaceWith(document.adoptNode(page.querySelector('main')));
  open.forEach((id) => document.getElementById(id)?.setAttribute('open', ''));
  if (focused) document.getElementById(focused)?.focus();
}

async function refresh() {
  try {
    const answer = await fetch('/api/v1/node', { cache: 'no-store' });
    if (!answer.ok) throw new Error('the exporter answers ' + answer.status);
    const view = await answer.json();
    const now = shape(view);
    // What came with the page may be older than the first answer, or nothing yet.
    const first = drawn === null && main().dataset.timestamp !== String(view.timestamp_seconds);
    if (first || (drawn !== null && drawn !== now)) await draw();
    drawn = now;
    move(view);
    const age = Math.max(0, Date.now() / 1000 - view.timestamp_seconds);
    live.textContent = 'sampled ' + new Date(view.timestamp_seconds * 1000).toLocaleTimeString();
    live.className = age > 60 ? 'warn' : 'quiet';
  } catch (error) {
    live.textContent = error instanceof TypeError ? 'the exporter does not answer' : error.message;
    live.className = 'bad';
  }
  setTimeout(refresh, document.hidden ? 10000 : 2000);
}
refresh();
