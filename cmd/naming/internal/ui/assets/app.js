'use strict';

// Every text of the registry goes through textContent. The policy of the page refuses
// innerHTML and inline scripts.

const $ = id => document.getElementById(id);

// el makes an element. A child that is not an element becomes text.
function el(tag, props, ...children) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(props || {})) {
    if (name === 'class') e.className = value;
    else if (name.startsWith('on')) e.addEventListener(name.slice(2), value);
    else if (value === true) e.setAttribute(name, '');
    else if (value !== false && value != null) e.setAttribute(name, value);
  }
  e.append(...children.filter(c => c != null && c !== ''));
  return e;
}

const state = {
  info: { registry: '', migrating: false, writes: false, steps: false, noSteps: '' },
  rows: new Map(), // by name
  loading: null, // the rows of a snapshot that is not complete
  status: null, offset: 0, connected: false,
  timeline: [], churn: new Map(), changes: 0,
  order: [], moving: [], bridges: [],
  selected: null, detail: null,
  view: 'services',
};

const maxTimeline = 2000;

// VirtualList shows the items of a list of one height that are in view.
class VirtualList {
  constructor(box, height, render, key) {
    Object.assign(this, { box, height, render, key, items: [], active: -1, nodes: new Map(), frame: 0 });
    this.space = el('div', { class: 'space', role: 'presentation' });
    box.append(this.space);
    box.addEventListener('scroll', () => this.draw(), { passive: true });
    new ResizeObserver(() => this.draw()).observe(box);
  }
  // set replaces the items. The active item stays the same by its key.
  set(items, activeKey) {
    this.items = items;
    this.active = activeKey === undefined ? -1 : items.findIndex(i => this.key(i) === activeKey);
    this.space.style.height = items.length * this.height + 'px';
    // An element whose item is the same stays: a click, or the focus, must not get lost.
    for (const [i, node] of this.nodes) {
      if (i < items.length && JSON.stringify(items[i]) === node.source) continue;
      if (node.contains(document.activeElement)) this.focused = node.key;
      node.remove();
      this.nodes.delete(i);
    }
    this.draw();
  }
  // refocus gives the focus to the button of an item whose element was replaced.
  refocus() {
    if (this.focused === undefined) return;
    const node = [...this.nodes.values()].find(n => n.key === this.focused);
    if (document.activeElement === document.body) (node && node.querySelector('button') || this.box).focus();
    this.focused = undefined;
  }
  draw() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => { this.frame = 0; this.paint(); });
  }
  paint() {
    const from = Math.max(0, Math.floor(this.box.scrollTop / this.height) - 8);
    const to = Math.min(this.items.length, Math.ceil((this.box.scrollTop + this.box.clientHeight) / this.height) + 8);
    for (const [i, node] of this.nodes) {
      if (i < from || i >= to) { node.remove(); this.nodes.delete(i); }
    }
    for (let i = from; i < to; i++) {
      if (!this.nodes.has(i)) {
        const node = this.render(this.items[i], i);
        node.source = JSON.stringify(this.items[i]);
        node.key = this.key(this.items[i]);
        node.style.top = i * this.height + 'px';
        node.style.height = this.height + 'px';
        node.id = this.box.id + '-' + i;
        this.nodes.set(i, node);
        this.space.append(node);
      }
      if (this.box.getAttribute('role') === 'listbox') {
        const node = this.nodes.get(i);
        node.setAttribute('aria-selected', String(i === this.active));
        node.setAttribute('aria-setsize', this.items.length);
        node.setAttribute('aria-posinset', i + 1);
      }
    }
    if (this.nodes.has(this.active)) this.box.setAttribute('aria-activedescendant', this.box.id + '-' + this.active);
    else this.box.removeAttribute('aria-activedescendant');
    this.refocus();
  }
  // move makes another item active and brings it into view.
  move(by) {
    if (!this.items.length) return null;
    this.active = Math.max(0, Math.min(this.items.length - 1, (this.active < 0 ? (by > 0 ? -1 : 0) : this.active) + by));
    const top = this.active * this.height;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (top + this.height > this.box.scrollTop + this.box.clientHeight) this.box.scrollTop = top + this.height - this.box.clientHeight;
    this.draw();
    return this.items[this.active];
  }
}

// Texts.

const now = () => Date.now() + state.offset;

function age(since) {
  const s = Math.max(0, Math.round((now() - since) / 1000));
  if (s < 120) return s + ' s';
  if (s < 7200) return Math.round(s / 60) + ' min';
  return Math.round(s / 3600) + ' h';
}

const eventClass = { added: 'good', usable: 'good', fresh: 'good', deleted: 'warn', held: 'warn', withheld: 'bad', stale: 'bad', gone: 'warn', fallback: 'bad', parity: 'warn' };
const stateClass = { serving: 'good', draining: 'warn', withheld: 'bad', held: 'warn' };
const chip = (text, kind) => el('span', { class: 'chip ' + (kind || 'dim') }, text);
const nameOf = row => row.text || row.name;
const total = row => row.serving + row.draining + row.withheld + row.held;
const trouble = row => (row.staleSince ? 1000 : 0) + (row.known ? 0 : 500) + row.held * 20 + row.withheld * 10 + row.draining + (row.fallback ? 100 : 0);

// The list of services.

function chipsOf(row) {
  const chips = [];
  if (!row.known) chips.push(chip('no answer', 'warn'));
  for (const name of ['draining', 'withheld', 'held']) {
    if (row[name]) chips.push(chip(row[name] + ' ' + name, stateClass[name]));
  }
  if (row.staleSince) chips.push(chip('stale', 'bad'));
  if (row.phase) chips.push(chip(row.phase));
  return chips;
}

const list = new VirtualList($('list'), 34, row => el('div', { class: 'item', role: 'option', onclick: () => select(row.name, true) },
  el('div', { class: 'one' }, el('span', { class: 'name' }, nameOf(row)), ...chipsOf(row), el('span', { class: 'count ' + (row.serving ? 'good' : 'bad'), title: row.serving + ' serving' }, String(row.serving)))),
  row => row.name);

const orders = {
  name: (a, b) => a.name < b.name ? -1 : 1,
  size: (a, b) => total(b) - total(a) || orders.name(a, b),
  churn: (a, b) => (state.churn.get(b.name) || 0) - (state.churn.get(a.name) || 0) || orders.name(a, b),
  trouble: (a, b) => trouble(b) - trouble(a) || orders.name(a, b),
};

let painted = 0; // when the list was painted last, in milliseconds since the request

function showList() {
  const filter = $('filter').value.trim().toLowerCase();
  let rows = [...state.rows.values()];
  if (filter) rows = rows.filter(r => nameOf(r).toLowerCase().includes(filter));
  rows.sort(orders[$('sort').value]);
  state.order = rows;
  list.set(rows, state.selected === null ? undefined : state.selected);
  const all = state.rows.size + (state.rows.size === 1 ? ' service' : ' services');
  $('count').textContent = rows.length === state.rows.size ? all : `${rows.length} of ${all}`;
  document.body.dataset.painted = String(rows.length);
  if (rows.length) requestAnimationFrame(() => setTimeout(() => { painted = performance.now(); }));
}

// The service.

let endpoints = null; // the VirtualList of the endpoints

function select(name, show) {
  state.selected = name;
  list.active = state.order.findIndex(r => r.name === name);
  list.draw();
  if (show) { document.body.classList.add('showing'); setView('services'); }
  loadDetail();
}

let detailRequest = 0;
async function loadDetail() {
  const name = state.selected, request = ++detailRequest;
  if (name === null) return;
  let detail;
  try {
    const response = await fetch('service?name=' + encodeURIComponent(name));
    detail = await response.json();
    if (!response.ok) { if (request === detailRequest) showGone(detail.error); return; }
  } catch { return; } // The stream says that the connection is lost.
  if (request === detailRequest) { state.detail = detail; showDetail(detail); }
}

function showGone(text) {
  endpoints = null;
  $('detail').replaceChildren(el('div', { class: 'head' }, backButton(), el('p', { class: 'bad' }, text)));
}

const backButton = () => el('button', { class: 'back', type: 'button', onclick: back }, '← Services');

function back() {
  document.body.classList.remove('showing');
  $('list').focus();
}

function showDetail(d) {
  const box = $('detail');
  const kept = endpoints && endpoints.service === d.name ? endpoints : null;
  const head = el('div', { class: 'head' },
    el('div', { class: 'row' }, backButton(), el('h2', {}, d.text),
      d.staleSince ? el('span', { class: 'chip bad', 'data-since': d.staleSince, 'data-text': 'stale for ' }, 'stale') : chip(d.known ? 'fresh' : 'no answer', d.known ? 'good' : 'warn')),
    el('div', { class: 'row' }, ...['serving', 'draining', 'withheld', 'held'].filter(s => d[s] || s === 'serving').map(s => chip(d[s] + ' ' + s, d[s] ? stateClass[s] : 'bad')),
      d.more ? el('span', { class: 'dim' }, d.more + ' more are not shown') : null),
    d.error ? el('div', { class: 'bad' }, d.error) : null,
    d.migration ? migrationBox(d) : null,
    recent(d.name));
  head.source = head.outerHTML;
  if (kept) {
    replaceHead(box.firstChild, head);
  } else {
    const items = el('div', { class: 'virtual', id: 'endpoints', role: 'list', tabindex: '0', 'aria-label': 'Endpoints' });
    box.replaceChildren(head, items);
    endpoints = new VirtualList(items, 48, endpointItem, e => e.id);
    endpoints.service = d.name;
  }
  endpoints.set(d.endpoints);
  tick();
}

// replaceHead replaces the head of the detail, unless it is the same: a click, or the focus, must
// not get lost.
function replaceHead(old, head) {
  if (old.source === head.source) return;
  const focused = document.activeElement, had = old.contains(focused);
  old.replaceWith(head);
  if (had) focusLike(focused);
}

// focusLike gives the focus to the control of the detail that has replaced another one.
function focusLike(replaced) {
  const label = e => e.getAttribute('aria-label') || e.textContent;
  ([...$('detail').querySelectorAll('button, summary')].find(e => label(e) === label(replaced)) || $('detail')).focus();
}

// recent shows the newest changes of a service, if there were any since the page was opened.
let recentOpen = false;
function recent(name) {
  const found = state.timeline.filter(c => c.name === name).slice(0, 20);
  if (!found.length) return null;
  const box = el('details', { open: recentOpen, ontoggle: () => { recentOpen = box.open; } }, el('summary', {}, 'Newest changes'),
    ...found.map(c => el('div', { class: 'row' }, el('time', { class: 'dim' }, new Date(c.time).toLocaleTimeString()), chip(c.event, eventClass[c.event]), el('span', { class: 'dim' }, c.text))));
  return box;
}

function endpointItem(e) {
  const facts = [];
  if (e.weight) facts.push('weight ' + e.weight);
  if (e.zone) facts.push('zone ' + e.zone);
  if (e.version) facts.push('version ' + e.version);
  if (e.tags) facts.push('tags ' + e.tags);
  if (e.unleased) facts.push('no lease');
  if (e.text !== e.addr) facts.push('id ' + e.text);
  let action = null;
  if (mayWrite() && e.state !== 'held') {
    const what = e.marked ? 'resume' : 'drain', label = e.marked ? 'Resume' : 'Drain';
    action = el('button', { type: 'button', 'aria-label': `${label} ${e.addr}`, onclick: () => mark(what, e) }, label);
  }
  return el('div', { class: 'item endpoint', role: 'listitem', title: e.metadata || null },
    el('div', { class: 'text' },
      el('div', { class: 'one' }, el('span', { class: 'name addr' }, e.addr || '(no address)')),
      el('div', { class: 'two' }, e.why === e.state ? null : el('span', { class: 'bad' }, e.why), el('span', { class: 'name' }, facts.join(' · ') || '—'))),
    chip(e.state, stateClass[e.state]), action);
}

// Migration.

function migrationBox(d) {
  const m = d.migration;
  const sides = m.sides.map(s => el('div', { class: 'side' + (s.used ? ' used' : '') },
    el('div', { class: 'row' }, el('strong', {}, s.name), ' ', chip(s.known ? s.endpoints + (s.endpoints === 1 ? ' endpoint' : ' endpoints') : 'no answer', s.known ? 'good' : 'warn'), ' ',
      s.stale ? chip('stale', 'bad') : null, s.used ? chip('used', 'dim') : null, s.name === m.lead ? chip('leads', 'dim') : null),
    s.error ? el('div', { class: 'bad' }, s.error) : null,
    m.parity ? onlyOn(s === m.sides[0] ? m.onlyOld : m.onlyNew) : null));
  const p = m.parity;
  return el('div', { class: 'migration' },
    track(m.known ? m.phase : ''),
    el('div', { class: 'row' }, el('strong', {}, 'Phase'), chip(m.known ? m.phase + (m.phase === 'prefer-new' ? ' ' + m.share * 100 + ' %' : '') : 'unknown', m.known ? 'good' : 'warn'),
      m.by ? el('span', { class: 'dim' }, 'by ' + m.by) : null,
      m.fallbackSince ? chip('falls back', 'bad') : null,
      p && p.known ? chip(p.equal ? 'registries agree' : differences(p.missing, p.extra, p.different), p.equal ? 'good' : 'warn') : null,
      p && p.copies ? chip(p.copies + ' only as copies', 'warn') : null, el('span', { class: 'grow' }), stepButtons(d.name)),
    m.why ? el('div', { class: 'bad' }, m.why) : null,
    m.uncovered ? el('div', { class: 'dim' }, 'not covered: ' + m.uncovered.join(', ')) : null,
    m.sourceError ? el('div', { class: 'bad' }, m.sourceError) : null,
    el('div', { class: 'sides' }, ...sides));
}

const onlyOn = list => list ? el('div', { class: 'dim' }, 'only here: ' + list.join(', ')) : null;

const phases = ['old', 'dual-write', 'shadow', 'union', 'prefer-new', 'new-read', 'new-write', 'done'];

// track shows how far a phase is.
function track(phase) {
  const at = phases.indexOf(phase);
  return el('span', { class: 'track', role: 'img', 'aria-label': at < 0 ? 'phase unknown' : `phase ${at} of ${phases.length - 1}`, title: phase || 'unknown' },
    ...phases.map((p, i) => el('span', { class: i < at ? 'past' : i === at ? 'now' : '' })));
}

// stepButtons are the buttons of a record, or of all services without a record of their own.
function stepButtons(record) {
  if (!mayWrite() || !state.info.steps) return null;
  return el('span', { class: 'buttons' },
    el('button', { type: 'button', class: 'primary', onclick: () => step(record, false) }, 'Advance…'),
    el('button', { type: 'button', onclick: () => step(record, true) }, 'Back…'));
}

const differences = (missing, extra, different) => [[missing, 'missing'], [extra, 'extra'], [different, 'different']].filter(([n]) => n).map(([n, what]) => n + ' ' + what).join(', ') || 'not equal';

function parityChip(row) {
  if (!row.parity) return chip('not compared');
  if (row.parity === 'equal') return chip('equal', 'good');
  const [missing, extra, different] = JSON.parse(row.parity);
  return chip(differences(missing, extra, different), 'warn');
}

const moving = new VirtualList($('moving'), 48, row => el('div', { class: 'item moving', role: 'option', onclick: () => select(row.name, true) },
  el('span', { class: 'name' }, nameOf(row)),
  el('span', { class: 'phase' }, track(row.phase), el('span', {}, row.phase || 'unknown')),
  el('span', { class: 'both' }, side(state.info.old, row.old, row), el('span', { class: 'dim' }, '→'), side(state.info.new, row.new, row)),
  el('span', { class: 'marks' }, row.fallback ? chip('falls back', 'bad') : null, parityChip(row), row.narrow ? chip('one registry') : null)),
  row => row.name);

// side shows how many endpoints a registry has.
const side = (name, n, row) => el('span', {}, name + ' ', el('strong', { class: n === undefined ? 'dim' : n < Math.max(row.old ?? 0, row.new ?? 0) ? 'warn' : '' }, String(n ?? '–')));

function showMigration() {
  if (!state.info.migrating) return;
  state.moving = [...state.rows.values()].sort((a, b) => Number(b.fallback || false) - Number(a.fallback || false) || orders.name(a, b));
  moving.set(state.moving, state.selected === null ? undefined : state.selected);
  $('bridges').replaceChildren(...state.bridges.map(b => el('div', {}, el('strong', {}, `Bridge ${b.name}: ${b.source} → ${b.target}`), b.by ? ' by ' + b.by : '', (b.registry ? ', elected in ' + b.registry : '') + ' ', b.stale ? chip('stale', 'bad') : null, b.stale ? ' ' : null,
    b.digest ? chip(`the fuse has blown: ${b.deletes} deletions wait (${b.digest})`, 'bad') : chip('the fuse is whole', 'good'))));
}

// The timeline.

const changes = new VirtualList($('changes'), 30, c => el('div', { class: 'item', role: 'listitem' },
  el('div', { class: 'one' }, el('time', { class: 'dim' }, new Date(c.time).toLocaleTimeString()), chip(c.event, eventClass[c.event]),
    el('span', { class: 'what' }, c.service), el('span', { class: 'name dim' }, c.text))), c => c.seq);

const samples = [[], [], [], []]; // time, serving, withheld and held, changes
let chart = null, chartTheme = '';

function sample() {
  if (!state.status) return;
  let serving = 0, bad = 0;
  for (const r of state.rows.values()) { serving += r.serving; bad += r.withheld + r.held; }
  [now() / 1000, serving, bad, state.changes].forEach((v, i) => samples[i].push(v));
  state.changes = 0;
  if (samples[0].length > 900) samples.forEach(s => s.shift());
  if (state.view === 'timeline') showChart();
}

function showChart() {
  if (!samples[0].length) return; // An axis without a time shows the year 1970.
  const box = $('chart'), style = getComputedStyle(document.documentElement), colour = name => style.getPropertyValue(name).trim();
  const theme = colour('--text') + box.clientWidth;
  if (chart && theme === chartTheme) { chart.setData(samples); return; }
  if (chart) chart.destroy();
  chartTheme = theme;
  const axis = { stroke: colour('--dim'), grid: { stroke: colour('--line'), width: 1 }, ticks: { stroke: colour('--line'), width: 1 } };
  chart = new uPlot({
    width: Math.max(200, box.clientWidth - 12), height: 180,
    scales: { x: { range: (u, min, max) => [Math.min(min, max - 60), max] }, changes: { range: (u, min, max) => [0, Math.max(1, max)] } },
    axes: [axis, { ...axis, size: 60 }, { ...axis, scale: 'changes', side: 1, grid: { show: false } }],
    series: [{}, { label: 'serving', stroke: colour('--good') }, { label: 'withheld, held', stroke: colour('--bad') }, { label: 'changes', scale: 'changes', stroke: colour('--accent') }],
  }, samples, box);
}

// The views.

const views = ['services', 'timeline', 'migration'];

function setView(view, focus) {
  if (view === 'migration' && !state.info.migrating) return;
  state.view = view;
  for (const v of views) {
    $(v).hidden = v !== view;
    const tab = $('tab-' + v);
    tab.setAttribute('aria-selected', String(v === view));
    tab.tabIndex = v === view ? 0 : -1;
  }
  if (view === 'timeline') { changes.set(state.timeline); showChart(); }
  if (view === 'migration') showMigration();
  if (focus) $({ services: 'list', timeline: 'changes', migration: 'moving' }[view]).focus();
}

let pending = false;
function refresh() {
  if (pending) return;
  pending = true;
  requestAnimationFrame(() => {
    pending = false;
    showList();
    showOverview();
    if (state.view === 'timeline') changes.set(state.timeline);
    if (state.view === 'migration') showMigration();
  });
}

function showStatus() {
  const s = state.status, box = $('status');
  box.className = '';
  if (!state.connected) { box.textContent = 'connection lost, trying again'; box.className = 'bad'; return; }
  if (!s) { box.textContent = 'connecting'; return; }
  if (s.fresh) { box.textContent = 'fresh'; box.className = 'good'; showOverview(); return; }
  box.className = 'bad';
  if (!state.rows.size && !s.services) box.textContent = 'waiting for the registry' + (s.error ? ': ' + s.error : '');
  else box.textContent = `stale${s.asOf ? ' for ' + age(s.asOf) : ''}, ${s.stale} of ${s.services} services` + (s.error ? ': ' + s.error : '');
}

// showOverview shows the sums while no service is selected.
function showOverview() {
  const box = $('overview');
  if (!box) return;
  const sums = { services: state.rows.size, serving: 0, draining: 0, withheld: 0, held: 0 };
  for (const r of state.rows.values()) for (const s of ['serving', 'draining', 'withheld', 'held']) sums[s] += r[s];
  box.replaceChildren(...Object.entries(sums).map(([name, n]) => el('div', { class: 'tile' }, el('strong', { class: n ? stateClass[name] || '' : 'dim' }, n.toLocaleString()), el('span', { class: 'dim' }, name))));
}

// tick updates the ages.
function tick() {
  showStatus();
  for (const e of document.querySelectorAll('[data-since]')) e.textContent = e.dataset.text + age(Number(e.dataset.since));
}

// The stream.

function setStatus(s) {
  state.status = s;
  state.offset = s.now - Date.now();
  state.connected = true;
  showStatus();
}

function addChanges(list) {
  for (const c of list) state.churn.set(c.name, (state.churn.get(c.name) || 0) + 1);
  state.changes += list.length;
  state.timeline = [...list.toReversed(), ...state.timeline].slice(0, maxTimeline);
}

// touchDetail loads the selected service again if it has changed: at once, and then at most
// every 100 ms.
let detailTimer = 0, detailAt = 0;
function touchDetail(names) {
  if (state.selected === null || !names.has(state.selected) || detailTimer) return;
  detailTimer = setTimeout(() => { detailTimer = 0; detailAt = Date.now(); loadDetail(); }, Math.max(0, detailAt + 100 - Date.now()));
}

function connect() {
  const source = new EventSource('events');
  source.addEventListener('status', e => setStatus(JSON.parse(e.data)));
  source.addEventListener('snapshot', e => {
    const d = JSON.parse(e.data);
    if (d.first) state.loading = new Map();
    for (const r of d.rows) state.loading.set(r.name, r);
    if (d.first && !d.last && !state.rows.size) { state.rows = new Map(state.loading); refresh(); }
    if (!d.last) return;
    state.rows = state.loading;
    state.bridges = d.bridges || [];
    state.timeline = (d.timeline || []).toReversed();
    setStatus(d.status);
    if (!samples[0].length) sample();
    refresh();
    if (state.selected !== null) loadDetail();
  });
  source.addEventListener('changes', e => {
    const d = JSON.parse(e.data), names = new Set(d.gone || []);
    for (const name of d.gone || []) state.rows.delete(name);
    for (const r of d.rows) { state.rows.set(r.name, r); names.add(r.name); }
    if (d.bridges) state.bridges = d.bridges;
    addChanges(d.changes);
    setStatus(d.status);
    refresh();
    touchDetail(names);
  });
  source.addEventListener('error', () => {
    state.connected = false;
    showStatus();
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 2000);
  });
}

// Actions.

const token = (() => {
  const found = new URLSearchParams(location.hash.slice(1)).get('token');
  if (found) {
    sessionStorage.setItem('token', found);
    history.replaceState(null, '', location.pathname);
  }
  return found || sessionStorage.getItem('token') || '';
})();

const mayWrite = () => state.info.writes && token !== '';

// asking says that a question has no answer yet. A second question would share its answer.
let asking = false;

// confirmed asks a question with a title and further elements. It returns whether the answer
// is yes. ready, if given, returns whether yes may be answered.
async function confirmed(title, parts, yes, ready) {
  if (asking) return false;
  asking = true;
  const ask = $('ask'), asker = document.activeElement, update = () => { $('ask-yes').disabled = Boolean(ready) && !ready(); };
  $('ask-text').textContent = title;
  $('ask-more').replaceChildren(...parts);
  $('ask-yes').textContent = yes;
  $('ask-yes').className = yes === 'Drain' ? 'danger' : 'primary';
  ask.returnValue = 'no';
  ask.addEventListener('change', update);
  update();
  ask.showModal();
  $('ask-no').focus();
  await new Promise(done => ask.addEventListener('close', done, { once: true }));
  ask.removeEventListener('change', update);
  if (!asker.isConnected) focusLike(asker);
  asking = false;
  return ask.returnValue === 'yes';
}

// act asks the server for an action. It returns the answer, or null after it has shown why
// there is no answer.
async function act(action, body) {
  try {
    const response = await fetch('actions/' + action, { method: 'POST', headers: { 'Content-Type': 'application/json', 'Naming-Token': token }, body: JSON.stringify(body) });
    const answer = await response.json();
    if (response.ok) return answer;
    showMessage(answer.error, 'bad');
  } catch { showMessage('the server does not answer', 'bad'); }
  return null;
}

// change makes a change and shows what has happened.
async function change(action, body, doing) {
  showMessage(doing, 'busy');
  const answer = await act(action, body);
  if (answer) showMessage(answer.text, 'good');
  loadDetail();
}

async function mark(what, e) {
  const service = state.selected, text = state.detail.text, name = e.addr || e.text;
  const note = what === 'drain' ? 'New calls go to other endpoints. The program goes on serving the calls that it has.' : 'New calls go to this endpoint again.';
  if (!await confirmed(`${what} ${name} of ${text}?`, [el('p', { class: 'dim' }, note)], what === 'drain' ? 'Drain' : 'Resume')) return;
  change(what, { service, id: e.id }, `${what} ${name}: looking whether the mark holds…`);
}

async function step(record, back) {
  if (asking) return;
  showMessage(back ? 'Reading the records…' : 'Looking at the gates…', 'busy');
  const answer = await act('look', { service: record, back });
  if (!answer) return;
  hideMessage();
  const s = answer.step, humans = new Map(), force = el('input', { type: 'checkbox' });
  const parts = (s.warnings || []).map(w => el('p', { class: 'warn' }, w));
  for (const g of s.gates) parts.push(gateBox(g, s.gates.length > 1, humans));
  const rest = s.closed + s.open - s.gates.length;
  if (rest > 0) parts.push(el('p', { class: 'dim' }, `and ${rest} more gates; ${s.closed} of ${s.closed + s.open} are closed`));
  const open = () => s.gates.every(g => g.conditions.every(c => c.holds || humans.get(c.name)?.every(box => box.checked))) && rest === 0;
  if (s.closed) parts.push(el('label', { class: 'force' }, force, ' Go on although a gate is closed'));
  else if (!back) parts.push(el('p', { class: 'good' }, 'The gate is open.'));
  if (back) parts.push(el('p', { class: 'dim' }, 'A step back has no gate.'));
  if (!await confirmed(`${s.record}: ${s.from} → ${s.to}`, parts, back ? 'Go back' : 'Advance', () => back || !s.closed || force.checked || open())) return;
  const ticked = [...humans].filter(([, boxes]) => boxes.some(box => box.checked)).map(([name]) => name);
  change('step', { service: record, back, phase: s.phase, share: s.share || 0, from: s.from, confirmed: ticked, force: force.checked }, `${s.record}: writing ${s.to}…`);
}

// gateBox shows the conditions of a gate. It adds a box to tick for each condition that only a
// person can see to humans.
function gateBox(g, named, humans) {
  const lines = g.conditions.map(c => {
    let tick = null;
    if (c.human && !c.holds) {
      const box = el('input', { type: 'checkbox' });
      humans.set(c.name, [...(humans.get(c.name) || []), box]);
      tick = el('label', {}, box, ' I have looked: this holds');
    }
    return el('li', {}, chip(c.holds ? 'ok' : 'no', c.holds ? 'good' : 'bad'), ' ', el('strong', {}, c.name), ' ', c.why,
      c.holds ? null : el('div', { class: 'dim' }, c.opens), tick);
  });
  return el('div', { class: 'gate' }, named ? el('h3', {}, g.service) : null, el('ul', {}, ...lines));
}

let messageTimer = 0;
// showMessage shows a text: for some seconds if it is good, and else until another one.
function showMessage(text, kind) {
  clearTimeout(messageTimer);
  $('message-text').textContent = text;
  $('message').className = kind;
  $('message').hidden = false;
  if (kind === 'good') messageTimer = setTimeout(hideMessage, 10000);
}
const hideMessage = () => { $('message').hidden = true; };

// Dark and light.

function setTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  if (state.view === 'timeline') showChart();
}
function toggleTheme() {
  const dark = getComputedStyle(document.documentElement).colorScheme === 'dark' || (!document.documentElement.dataset.theme && matchMedia('(prefers-color-scheme: dark)').matches);
  const theme = dark ? 'light' : 'dark';
  localStorage.setItem('theme', theme);
  setTheme(theme);
}

// Keys.

function onKey(e) {
  if (e.ctrlKey || e.metaKey || e.altKey || document.querySelector('dialog[open]')) return;
  const typing = e.target.matches('input, select, textarea');
  if (typing) {
    if (e.key === 'Escape') { $('filter').value = ''; showList(); $('list').focus(); }
    else if (e.target.id === 'filter' && (e.key === 'ArrowDown' || e.key === 'Enter')) { e.preventDefault(); $('list').focus(); if (list.active < 0) moveBy(0); }
    return;
  }
  const keys = {
    '/': () => { setView('services'); document.body.classList.remove('showing'); $('filter').focus(); },
    '1': () => setView('services', true), '2': () => setView('timeline', true), '3': () => setView('migration', true),
    'd': toggleTheme, '?': () => $('help').showModal(),
    'Escape': () => { if ($('message').hidden) back(); else hideMessage(); },
    'j': () => moveBy(1), 'ArrowDown': () => moveBy(1), 'k': () => moveBy(-1), 'ArrowUp': () => moveBy(-1),
    'PageDown': () => moveBy(20), 'PageUp': () => moveBy(-20), 'Home': () => moveBy(-1e9), 'End': () => moveBy(1e9),
  };
  if (e.key === 'Enter' && e.target.getAttribute('role') === 'listbox') {
    const active = (state.view === 'migration' ? moving : list);
    const row = active.items[active.active];
    if (row) { e.preventDefault(); select(row.name, true); $('detail').focus(); }
    return;
  }
  const scrolls = e.target.getAttribute('role') === 'list'; // the browser scrolls these
  if (keys[e.key] && !(scrolls && /Arrow|Page|Home|End/.test(e.key))) { e.preventDefault(); keys[e.key](); }
}

let moveTimer = 0;
function moveBy(n) {
  if (state.view === 'timeline') { $('changes').scrollBy(0, 30 * Math.max(-20, Math.min(20, n))); return; }
  const row = (state.view === 'migration' ? moving : list).move(n);
  if (!row || state.view === 'migration') return;
  state.selected = row.name;
  clearTimeout(moveTimer);
  moveTimer = setTimeout(loadDetail, 80); // Not a request for each line that the key passes.
}

function onTabKey(e) {
  const shown = views.filter(v => !$('tab-' + v).hidden), at = shown.indexOf(state.view);
  const next = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
  if (!next) return;
  e.preventDefault();
  e.stopPropagation();
  setView(shown[(at + next + shown.length) % shown.length]);
  $('tab-' + state.view).focus();
}

async function start() {
  setTheme(localStorage.getItem('theme'));
  for (const v of views) $('tab-' + v).addEventListener('click', () => setView(v));
  document.querySelector('nav').addEventListener('keydown', onTabKey);
  document.addEventListener('keydown', onKey);
  $('filter').addEventListener('input', showList);
  $('sort').addEventListener('change', showList);
  $('theme').addEventListener('click', toggleTheme);
  $('keys').addEventListener('click', () => $('help').showModal());
  $('message-close').addEventListener('click', hideMessage);
  addEventListener('resize', () => { if (state.view === 'timeline') showChart(); });
  connect();
  try { state.info = await (await fetch('info')).json(); } catch { showStatus(); }
  $('registry').textContent = state.info.registry;
  document.title = 'naming ' + state.info.registry;
  $('tab-migration').hidden = !state.info.migrating;
  $('access').textContent = !state.info.writes ? '' : mayWrite() ? 'changes allowed' : 'read-only: this URL has no token';
  $('access').hidden = !state.info.writes;
  const all = stepButtons('*');
  if (all) $('all').append(el('span', {}, 'All services without a phase of their own'), el('span', { class: 'grow' }), all);
  else if (mayWrite() && state.info.migrating) $('all').append(el('span', { class: 'dim' }, state.info.noSteps));
  setInterval(tick, 1000);
  setInterval(sample, 2000);
}

start();
