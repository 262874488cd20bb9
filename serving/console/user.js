// One person: who it is, features with their age, the history of segments, decisions with reasons.
import { add, age, ask, called, chips, clock, el, inWords, list, problem, span, terms } from "./api.js"

const LAST = 20

export async function user(main, signal, who) {
  const waits = el("p", { className: "soft", role: "status" }, "Looking up all that is held of this person …")
  main.append(el("h1", {}, called(who)), waits)
  let held, book
  try {
    [held, book] = await Promise.all([everything(who, signal), ask("v1/playbook", { signal })])
  } catch (e) {
    if (!signal.aborted) waits.replaceWith(problem(e))
    return
  }
  waits.remove()
  const { profile, features, segments } = held
  const answer = el("div", { role: "status", className: "card" })
  const asked = { [who.kind == "users" ? "userId" : "anonymousId"]: who.id, explain: true }
  const decide = el("button", { onclick: () => ask("v1/decide", { method: "POST", body: asked, signal })
    .then(d => answer.replaceChildren(decision(d)), e => signal.aborted || answer.replaceChildren(problem(e))) }, "Decide now")
  add(main,
    held.optedOut && el("p", {}, el("strong", {}, "Opted out: "), "not profiled, and shown the default journey."),
    terms({
      "In now": chips(inNow(segments)), Traits: Object.entries(profile.traits).map(t => t.join(": ")).join(", "),
      "Anonymous ids": profile.aliases.join(", "), "Last event": held.events.length ? [held.events.at(-1).name
        || held.events.at(-1).type, ", ", age(held.events.at(-1).timestamp)] : null,
    }), decide, answer,
    el("h2", {}, "Segment history"), segments.length ? el("ol", { className: "plain" }, segments.toReversed().map(change))
      : el("p", { className: "soft" }, "no changes"),
    el("h2", {}, "Last decisions"), held.decisions.length ? held.decisions.slice(-LAST).reverse().map(past) : "none yet",
    el("h2", {}, "Features"), features ? table(features, book.features) : el("p", { className: "soft" }, "none are stored"),
  )
}

async function everything({ kind, id }, signal) {
  const path = `v1/${kind}/${encodeURIComponent(id)}?limit=5000`
  const held = await ask(path, { signal })
  for (let next = held.next; next;) {
    const page = await ask(`${path}&after=${next.after}&decisionsAfter=${next.decisionsAfter}&refusedAfter=${next.refusedAfter}`, { signal })
    held.events.push(...page.events)
    held.decisions.push(...page.decisions)
    next = page.next
  }
  return held
}

function inNow(changes) {
  const last = new Map(changes.filter(c => !c.takenBack).map(c => [c.segment, c.entered]))
  return [...last.keys()].filter(s => last.get(s))
}

function change(c) {
  return el("li", {}, clock(c.at), c.entered ? " entered " : " left ", chips([c.segment]),
    el("span", { className: "soft" }, c.source, c.takenBack && ", taken back later"),
    el("div", { className: "soft" }, c.cause))
}

function past(d) {
  return el("details", {}, el("summary", {}, clock(d.at), " ", d.elements.length ? chips(d.elements) : "nothing shown"),
    decision(d))
}

export function decision(d) {
  const dropped = d.dropped.map(x => [el("strong", {}, x.element), ` ${x.boundary}: ${x.detail}`])
  const moved = (d.contributions || []).map(c => `${c.feature} = ${c.value}: ${c.effect > 0 ? "raises" : "lowers"} the score`)
  return terms({
    Shown: d.elements.length ? chips(d.elements) : "nothing", Segments: d.segments && chips(d.segments),
    Why: list(d.reasons), Dropped: list(dropped), ...inWords(d),
    Score: d.score == null ? null : d.score.toFixed(3), "What moved it": list(moved),
    Experiments: d.experiments?.map(x => `${x.experiment}: ${x.variant}`).join(", "), Receipt: el("code", {}, d.decisionId),
  })
}

function table(features, catalogue) {
  const until = features.validUntil ? [", until ", clock(features.validUntil), " if nothing happens"]
    : ", until the next event"
  const words = new Map(catalogue.map(f => [f.name, f]))
  return el("table", {}, el("caption", {}, "Since ", clock(features.at), ` (${age(features.at)})`, until),
    el("tbody", {}, Object.entries(features.values).map(([name, value]) => {
      const f = words.get(name) || { doc: "", unit: "", null: "" }
      return el("tr", {}, el("th", { scope: "row" }, el("code", {}, name), el("small", {}, f.doc)),
        el("td", { className: "n" }, said(value, f)))
    })))
}

function said(value, { unit, null: nothing }) {
  if (value == null) return nothing || "not known"
  if (unit == "ms") return span(value)
  if (unit.startsWith("µs since")) return clock(new Date(value / 1000).toISOString())
  return typeof value == "number" ? `${+value.toFixed(3)} ${value == 1 ? unit.replace(/s$/, "") : unit}` : value
}
