'use strict';
// Numbers of these keys are updated in place; for any other change the page is fetched again.
const liveKeys = new Set(['timestamp_seconds', 'age_seconds', 'count', 'abandoned_threads', 'utilization_percent',
  'sm_percent', 'memory_used_mib', 'power_watts', 'temperature_celsius']);
const structure = (view) => JSON.stringify(view, (key, value) =>
  typeof value === 'number' && liveKeys.has(key) ? 0 : value);
const formats = {
  percent: (n) => n.toFixed(0) + ' %',
  mib: (n) => n.toFixed(0) + ' MiB',
  watts: (n) => n.toFixed(0) + ' W',
  celsius: (n) => n.toFixed(0) + ' °C',
  seconds: (n) => n.toFixed(0) + ' s',
  count: (n) => n.toFixed(0),
};
const lookup = (view, path) => path.split('.').reduce((found, key) => found?.[key], view);
const main = () => document.querySelector('main');
const live = document.getElementById('live');
let rendered = null;

function updateNumbers(view) {
  for (const element of document.querySelectorAll('[data-at]')) {
    const number = lookup(view, element.dataset.at);
    if (typeof number !== 'number') continue;
    if (element.localName === 'meter') element.value = number;
    else element.textContent = formats[element.dataset.as](number);
  }
}

async function fetchPage() {
  const response = await fetch('/', { cache: 'no-store' });
  if (!response.ok) throw new Error('the exporter returned status ' + response.status);
  const page = new DOMParser().parseFromString(await response.text(), 'text/html');
  const focused = document.activeElement?.id;
  const open = [...document.querySelectorAll('details[open]')].map((details) => details.id);
  main().replaceWith(document.adoptNode(page.querySelector('main')));
  open.forEach((id) => document.getElementById(id)?.setAttribute('open', ''));
  if (focused) document.getElementById(focused)?.focus();
}

async function refresh() {
  try {
    const response = await fetch('/api/v1/node', { cache: 'no-store' });
    if (!response.ok) throw new Error('the exporter returned status ' + response.status);
    const view = await response.json();
    const current = structure(view);
    // The initial page may be older than the first response, or contain no sample yet.
    const outdated = rendered === null && main().dataset.timestamp !== String(view.timestamp_seconds);
    if (outdated || (rendered !== null && rendered !== current)) await fetchPage();
    rendered = current;
    updateNumbers(view);
    const age = Math.max(0, Date.now() / 1000 - view.timestamp_seconds);
    live.textContent = 'sampled ' + new Date(view.timestamp_seconds * 1000).toLocaleTimeString();
    live.className = age > 60 ? 'warn' : 'muted';
  } catch (error) {
    live.textContent = error instanceof TypeError ? 'the exporter does not respond' : error.message;
    live.className = 'bad';
  }
  setTimeout(refresh, document.hidden ? 10000 : 2000);
}
refresh();
