// Renders the OpenAPI document of this platform. Texts go into the page as text, never as HTML.
'use strict';

const METHODS = ['get', 'post', 'put', 'patch', 'delete'];
const DEPTH_MAX = 6;
const byId = (id) => document.getElementById(id);

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  Object.assign(element, properties);
  element.append(...children.filter((child) => child !== null));
  return element;
}

const prose = (text) => (text ? make('p', { className: 'text' }, ...inline(text)) : null);

// Words between backquotes are code.
function inline(text) {
  return text.split('`').map((piece, index) => (index % 2 ? make('code', {}, piece) : piece));
}

class Reference {
  constructor(document) { this.document = document; }

  resolve(schema) {
    const path = schema?.$ref?.slice(2).split('/');
    if (!path) return schema ?? {};
    return path.reduce((at, key) => at?.[key.replaceAll('~1', '/').replaceAll('~0', '~')], this.document) ?? {};
  }

  // The properties of an object, whatever it is put together from.
  properties(schema) {
    const whole = this.resolve(schema);
    const parts = (whole.allOf ?? []).map((part) => this.properties(part));
    const required = new Set([...(whole.required ?? []), ...parts.flatMap((part) => [...part.required])]);
    const all = Object.assign({}, ...parts.map((part) => part.all), whole.properties ?? {});
    return { all, required };
  }

  type(schema) {
    const whole = this.resolve(schema);
    const name = schema?.$ref?.split('/').pop();
    const choices = whole.oneOf ?? whole.anyOf;
    if (choices) return choices.map((choice) => this.type(choice)).join(' or ');
    const types = [whole.type ?? (whole.allOf || whole.properties ? 'object' : 'any')].flat();
    if (types.includes('array')) return [`list of ${this.type(whole.items)}`, ...types.filter((type) => type !== 'array')].join(' or ');
    if (types[0] === 'object' && name) return name;
    return types.join(' or ') + (whole.format ? ` (${whole.format})` : '');
  }

  limits(schema) {
    const whole = this.resolve(schema);
    const words = [];
    if (whole.enum) words.push(`one of ${whole.enum.map((value) => JSON.stringify(value)).join(', ')}`);
    if (whole.default !== undefined) words.push(`default ${JSON.stringify(whole.default)}`);
    const range = (low, high, unit) => {
      if (low !== undefined || high !== undefined) words.push(`${low ?? 0} to ${high ?? 'any'}${unit}`);
    };
    range(whole.minimum, whole.maximum, '');
    range(whole.minLength, whole.maxLength, ' characters');
    range(whole.minItems, whole.maxItems, ' items');
    return words.join('; ');
  }

  fields(schema, depth = 0) {
    const whole = this.resolve(schema);
    const branches = [schema, whole.items, ...(whole.oneOf ?? []), ...(whole.anyOf ?? [])];
    for (const branch of branches) {
      if (!branch) continue;
      const { all, required } = this.properties(branch);
      if (Object.keys(all).length === 0 && branch !== schema) {
        const deeper = branch === whole.items ? null : this.resolve(branch).items;
        const inner = deeper ? this.fields(deeper, depth) : null;
        if (inner) return inner;
        continue;
      }
      if (Object.keys(all).length === 0) continue;
      return make('ul', { className: 'fields' }, ...Object.entries(all).map(([name, field]) => this.field(name, field, required.has(name), depth)));
    }
    return null;
  }

  field(name, schema, required, depth) {
    const about = schema.description ?? this.resolve(schema).description;
    const inner = depth < DEPTH_MAX ? this.fields(schema, depth + 1) : null;
    const limits = this.limits(schema);
    return make('li', {},
      make('code', { className: 'name' }, name), ' ',
      make('span', { className: 'quiet small' }, this.type(schema)), ' ',
      required ? make('span', { className: 'needed' }, 'required') : null,
      prose(about),
      limits ? make('p', { className: 'quiet small' }, limits) : null,
      inner ? make('details', {}, make('summary', {}, 'Fields'), inner) : null);
  }

  // An example from the examples of the parts; only what is required is made up.
  example(schema, depth = 0) {
    const whole = this.resolve(schema);
    const given = schema?.example ?? schema?.examples?.[0] ?? whole.example ?? whole.examples?.[0];
    if (given !== undefined) return given;
    if (whole.default !== undefined && whole.default !== null) return whole.default;
    if (whole.enum) return whole.enum[0];
    const choices = whole.oneOf ?? whole.anyOf;
    if (choices) return this.example(choices.find((choice) => choice.type !== 'null') ?? choices[0], depth);
    const type = [whole.type].flat().find((one) => one !== 'null');
    if (type === 'array') return depth > DEPTH_MAX ? [] : [this.example(whole.items, depth + 1)];
    const { all, required } = this.properties(schema);
    if (Object.keys(all).length > 0 && depth <= DEPTH_MAX) {
      const shown = Object.entries(all).filter(([name, field]) => required.has(name) || this.hasExample(field));
      return Object.fromEntries(shown.map(([name, field]) => [name, this.example(field, depth + 1)]));
    }
    return { string: whole.format === 'date-time' ? '2026-01-31T12:00:00.000Z' : 'string', integer: whole.minimum ?? 0, number: 0, boolean: true }[type] ?? {};
  }

  hasExample(schema) {
    return schema.example !== undefined || this.resolve(schema).example !== undefined;
  }
}

const kind = (method) => ({ get: 'accent', delete: 'bad' }[method] ?? 'good');
const methodBadge = (method) => make('span', { className: `badge ${kind(method)}` }, method.toUpperCase());
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function curl(reference, operation) {
  const lines = [`curl -s ${operation.method === 'get' ? '' : `-X ${operation.method.toUpperCase()} `}${quoted(location.origin + operation.path)}`];
  const scopes = (operation.security ?? []).some((way) => 'api_key' in way);
  if (scopes) lines.push(`-H 'Authorization: Bearer pr_live_...'`);
  const body = operation.requestBody?.content?.['application/json'];
  if (body) {
    lines.push(`-H 'Content-Type: application/json'`);
    lines.push(`-d ${quoted(JSON.stringify(body.example ?? reference.example(body.schema), null, 2))}`);
  }
  return make('pre', { tabIndex: 0 }, lines.join(' \\\n  '));
}

function responses(reference, operation) {
  return make('ul', { className: 'fields' }, ...Object.entries(operation.responses ?? {}).map(([status, answer]) => {
    const [type, content] = Object.entries(answer.content ?? {})[0] ?? [];
    const ok = status.startsWith('2');
    const fields = ok && content ? reference.fields(content.schema) : null;
    return make('li', {},
      make('span', { className: `badge ${ok ? 'good' : ''}` }, status), ' ', ...inline(answer.description ?? ''),
      type ? make('span', { className: 'quiet small' }, ` ${type}`) : null,
      fields ? make('details', {}, make('summary', {}, 'Fields'), fields) : null);
  }));
}

function section(reference, operation) {
  const parameters = (operation.parameters ?? []).map((parameter) => reference.resolve(parameter));
  const body = operation.requestBody?.content?.['application/json']?.schema;
  const scopes = (operation.security ?? []).flatMap((way) => way.api_key ?? []);
  const heading = (text) => make('h4', {}, text);
  return make('section', { id: operation.operationId },
    make('h3', {}, operation.summary ?? operation.operationId),
    make('p', { className: 'address' }, methodBadge(operation.method), make('code', {}, operation.path),
      make('span', { className: 'quiet small' }, operation.operationId),
      ...scopes.map((scope) => make('span', { className: 'badge' }, `scope ${scope}`))),
    prose(operation.description),
    ...(parameters.length ? [heading('Parameters'), make('ul', { className: 'fields' }, ...parameters.map((parameter) => {
      const schema = { ...parameter.schema, description: parameter.description };
      return reference.field(parameter.name, schema, parameter.required, DEPTH_MAX);
    }))] : []),
    ...(body ? [heading('Body'), reference.fields(body) ?? make('p', {}, reference.type(body))] : []),
    heading('Example'), curl(reference, operation),
    heading('Answers'), responses(reference, operation));
}

function operations(api) {
  return Object.entries(api.paths).flatMap(([path, item]) => METHODS.filter((method) => item[method])
    .map((method) => ({ ...item[method], method, path, tag: item[method].tags?.[0] ?? 'other' })));
}

function show(api) {
  const reference = new Reference(api);
  const all = operations(api);
  const tags = [...new Set(all.map((operation) => operation.tag))];
  const rank = (tag) => ({ emails: 0, inbox: 2, reference: 3 }[tag] ?? 1);
  tags.sort((one, other) => rank(one) - rank(other) || one.localeCompare(other));
  const links = [];
  byId('main').replaceChildren(
    make('div', { className: 'intro' }, make('h2', {}, `${api.info.title} ${api.info.version}`),
      ...(api.info.description ?? '').split('\n\n').map(prose)));
  for (const tag of tags) {
    const own = all.filter((operation) => operation.tag === tag);
    byId('main').append(make('h2', { className: 'group' }, tag), ...own.map((operation) => section(reference, operation)));
    const items = own.map((operation) => make('a', { href: `#${operation.operationId}` }, methodBadge(operation.method), operation.summary ?? operation.operationId));
    const group = make('div', {}, make('h2', {}, tag), ...items);
    links.push({ group, items: items.map((item, index) => ({ item, words: `${own[index].path} ${own[index].operationId} ${item.textContent}`.toLowerCase() })) });
    byId('index').append(group);
  }
  byId('query').addEventListener('input', () => {
    const wanted = byId('query').value.trim().toLowerCase();
    for (const { group, items } of links) {
      for (const { item, words } of items) item.hidden = !words.includes(wanted);
      group.hidden = items.every(({ item }) => item.hidden);
    }
  });
  if (location.hash) byId(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
}

fetch('openapi.json').then((answer) => {
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  return answer.json();
}).then(show).catch((error) => {
  byId('main').replaceChildren(make('p', {}, `The reference could not be read: ${error.message}`));
});
