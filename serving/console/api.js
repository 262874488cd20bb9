// What the pages share: asking the service, following its stream, and making elements. Values become text, never markup.
const root = new URL("../", import.meta.url)
const store = sessionStorage
export const key = { get: () => store["console.key"] || "", set: k => { store["console.key"] = k } }
const headers = () => key.get() ? { authorization: `Bearer ${key.get()}` } : {}

export class Problem extends Error {
  constructor(status, { message = `the service answered ${status}` }) { super(message); this.status = status }
}

export async function ask(path, { method = "GET", body, signal } = {}) {
  const type = body ? { "content-type": "application/json" } : {}
  const sent = { method, signal, headers: { ...headers(), ...type }, body: body && JSON.stringify(body) }
  const answer = await fetch(new URL(path, root), sent)
  const said = answer.status == 204 ? null : await answer.json().catch(() => ({}))
  if (!answer.ok) throw new Problem(answer.status, said)
  return said
}

// Server-sent events by fetch, because an EventSource can send no key. Ends where the service ends it.
export async function* follow(path, signal) {
  const answer = await fetch(new URL(path, root), { headers: headers(), signal })
  if (!answer.ok) throw new Problem(answer.status, await answer.json().catch(() => ({})))
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader()
  for (let rest = "", read; !(read = await reader.read()).done;) {
    const frames = (rest + read.value).split("\n\n")
    rest = frames.pop()
    for (const frame of frames) {
      const fields = Object.fromEntries(frame.split("\n").map(line => [line.split(":", 1)[0], line.replace(/^\w*: ?/, "")]))
      if (fields.data) yield { event: fields.event, data: JSON.parse(fields.data) }
    }
  }
}

export function el(name, properties = {}, ...children) {
  const made = document.createElement(name)
  for (const [k, v] of Object.entries(properties)) k in made ? made[k] = v : made.setAttribute(k, v)
  return add(made, ...children)
}
export function add(to, ...children) {
  to.append(...children.flat().filter(c => c != null && c !== false))
  return to
}
// Whom a document is about, by its `userId` or `anonymousId`: kind is what the paths begin with.
export const whose = ({ userId, anonymousId }) => userId != null ? { kind: "users", id: userId }
  : { kind: "anonymous", id: anonymousId }
export const called = ({ kind, id }) => kind == "users" ? id : `anonymous ${id}`
export const link = who => el("a", { href: `#/${who.kind}/${encodeURIComponent(who.id)}` }, called(who))
export const chips = names => names.map(n => el("span", { className: "chip" }, n))
export const list = items => items.length ? el("ul", {}, items.map(i => el("li", {}, i))) : null
export const terms = pairs => el("dl", {}, Object.entries(pairs).filter(([, v]) => v != null && v.length !== 0)
  .flatMap(([k, v]) => [el("dt", {}, k), el("dd", {}, v)]))
// Of a decision with its explanation: the score in words, and what would change the outcome.
export const inWords = ({ explanation: e }) => e ? { "In words": list(e.sentences),
  "Within reach": list([e.counterfactual, e.ruleWithinReach].filter(Boolean).map(c => c.words)) } : {}
export const problem = e => el("p", { className: "bad", role: "alert" }, e.status == 401 || e.status == 403
  ? `${e.message}. Open “Server key” below.` : e.message)

export const clock = at => el("time", { dateTime: at }, at.slice(0, 19).replace("T", " "))
const UNITS = [["day", 864e5], ["hour", 36e5], ["minute", 6e4], ["second", 1e3]]
export function span(ms) {
  const [name, size] = UNITS.find(u => ms >= u[1]) || UNITS[3]
  const n = Math.floor(ms / size)
  return `${n} ${name}${n == 1 ? "" : "s"}`
}
export const age = at => `${span(Math.max(0, Date.now() - Date.parse(at)))} ago`
export const percent = share => `${+(100 * share).toFixed(1)} %`
