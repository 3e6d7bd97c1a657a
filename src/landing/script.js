'use strict';
// The page is fetched again in each interval, and what has changed is replaced in place.
const main = () => document.querySelector('main');
const live = document.getElementById('live');
const banner = document.getElementById('stale');
const interval = () => Math.max(2000, 1000 * (Number(main().dataset.interval) || 5));
let sort = null;
let filter = '';
let answered = performance.now();
let sampled = answered;
let failure = '';

// Makes `now` equal to `next`, with as few changes as possible.
function update(now, next) {
  if (now.isEqualNode(next)) return;
  const same = now.nodeName === next.nodeName && now.childNodes.length === next.childNodes.length;
  if (!same || now.nodeType !== Node.ELEMENT_NODE) {
    if (now.nodeType === Node.TEXT_NODE && next.nodeType === Node.TEXT_NODE) now.data = next.data;
    else now.replaceWith(document.adoptNode(next.cloneNode(true)));
    return;
  }
  for (const { name } of [...now.attributes]) if (!next.hasAttribute(name)) now.removeAttribute(name);
  for (const { name, value } of next.attributes) if (now.getAttribute(name) !== value) now.setAttribute(name, value);
  [...now.childNodes].forEach((child, at) => update(child, next.childNodes[at]));
}

// The reader's choices, which the new page does not have.
function keep(change) {
  const lists = new Map([...document.querySelectorAll('details')].map((one) => [one.id, one.open]));
  const focused = document.activeElement;
  const owner = focused?.closest('[id]')?.id;
  undress();
  change();
  for (const one of document.querySelectorAll('details')) if (lists.has(one.id)) one.open = lists.get(one.id);
  dress();
  if (focused && focused !== document.body && document.activeElement !== focused) {
    const again = document.contains(focused) ? focused : document.getElementById(owner);
    (again?.matches('details') ? again.querySelector('summary') : again)?.focus({ preventScroll: true });
  }
}

const cell = (row, column) => row.cells[column].dataset.sort ?? row.cells[column].textContent;

// Adds the buttons, the order and the filter to the table of pods.
function dress() {
  const table = document.getElementById('pod-table');
  if (!table) return;
  document.querySelector('.filter').hidden = false;
  const input = document.getElementById('filter');
  if (input.value !== filter) input.value = filter;
  input.oninput = () => { filter = input.value; show(table); };
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement('button');
    button.textContent = head.textContent;
    button.id = 'sort-' + column;
    button.onclick = () => {
      sort = { column, down: sort?.column === column ? !sort.down : head.className === 'n' };
      show(table);
    };
    head.replaceChildren(button);
  });
  show(table);
}

function undress() {
  const table = document.getElementById('pod-table');
  if (!table) return;
  document.querySelector('.filter').hidden = true;
  document.getElementById('matches').textContent = '';
  for (const row of table.tBodies[0].rows) row.hidden = false;
  for (const head of table.tHead.rows[0].cells) {
    head.removeAttribute('aria-sort');
    head.textContent = head.textContent;
  }
}

function show(table) {
  const rows = [...table.tBodies[0].rows];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    if (sort?.column === column) head.setAttribute('aria-sort', sort.down ? 'descending' : 'ascending');
    else head.removeAttribute('aria-sort');
  });
  if (sort) {
    rows.sort((one, other) => {
      const [a, b] = [cell(one, sort.column), cell(other, sort.column)];
      return (sort.down ? -1 : 1) * a.localeCompare(b, 'en', { numeric: true });
    });
    table.tBodies[0].append(...rows);
  }
  const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
  let matching = 0;
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
    if (!row.hidden) matching += 1;
  }
  document.getElementById('matches').textContent = words.length ? matching + ' of ' + rows.length : '';
}

async function refresh() {
  try {
    const signal = AbortSignal.timeout(2 * interval());
    const response = await fetch('/', { cache: 'no-store', signal });
    if (!response.ok) throw new Error('the exporter returned status ' + response.status);
    const next = new DOMParser().parseFromString(await response.text(), 'text/html').querySelector('main');
    if (!next) throw new Error('the exporter returned another page');
    answered = performance.now();
    failure = '';
    if (next.dataset.timestamp !== main().dataset.timestamp) sampled = answered;
    keep(() => update(main(), next));
  } catch (error) {
    failure = error.name === 'TimeoutError' || error instanceof TypeError ? 'the exporter does not respond' : error.message;
  }
  watch();
  setTimeout(refresh, document.hidden ? Math.max(10000, interval()) : interval());
}

// The numbers are old if there was no answer, or no new sample, within two intervals.
function watch() {
  const silent = performance.now() - answered > 2 * interval();
  const stuck = performance.now() - sampled > 2 * interval() + 2000;
  const at = Number(main().dataset.timestamp);
  const time = at ? new Date(at * 1000).toLocaleTimeString() : 'no sample yet';
  live.textContent = at ? 'sampled ' + time : time;
  document.body.classList.toggle('old', silent || stuck);
  const text = silent || (failure && stuck)
    ? 'Old data: ' + (failure || 'the exporter does not respond') + '. The numbers are those of ' + time + '.'
    : stuck ? 'Old data: the exporter responds, but has no new sample. The numbers are those of ' + time + '.' : '';
  banner.hidden = !text;
  if (banner.textContent !== text) banner.textContent = text;
}

dress();
refresh();
setInterval(watch, 1000);
document.addEventListener('visibilitychange', watch);
