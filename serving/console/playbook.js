// What decides now: rules in words, experiments with their figures, elements with their boundaries.
import { ask, chips, clock, el, list, percent, problem, terms } from "./api.js"

export async function playbook(main, signal) {
  main.append(el("h1", {}, "Rules and experiments"))
  try {
    const book = await ask("v1/playbook", { signal })
    const now = await ask("v1/segments", { signal }).catch(e => ({ segments: null }))
    const people = now.segments && new Map(now.segments.map(s => [`${s.source}/${s.segment}`, s.people]))
    const count = at => people ? `${(people.get(at) || 0).toLocaleString("en")} now` : null
    main.append(
      el("p", { className: "soft" }, `${book.title}, version `, el("code", {}, book.version)),
      part("Experiments", book.experiments.map(experiment), `${percent(book.holdout)} of all people are in none, for good.`),
      part("Rules", book.rules.map(r => card(r.segment, el("p", {}, r.why), terms({
        In: el("code", {}, r.enter), Out: el("code", {}, r.exit), Notes: r.notes.join(", "), Priority: String(r.priority),
        People: count(`rules/${r.segment}`) })))),
      part("Engagement", book.engagement.map(s => card(s.segment, el("p", {}, s.why),
        terms({ People: count(`engagement/${s.segment}`) })))),
      part("Elements", book.elements.map(element), `${book.boundaries.join("; ")}.`))
  } catch (e) {
    if (!signal.aborted) main.append(problem(e))
  }
}

const part = (title, cards, note) =>
  el("section", { ariaLabel: title }, el("h2", {}, title), note && el("p", {}, note), el("div", { className: "grid" }, cards))
const card = (title, ...content) => el("article", { className: "card", ariaLabel: title }, el("h3", {}, title), content)

function element(e) {
  return card(e.title, el("p", {}, el("code", {}, e.element), " ", chips([e.kind.replace("_", " ")])),
    terms({ For: chips(e.segments), Limits: e.boundaries.join(", "), Priority: String(e.priority) }))
}

function experiment(e) {
  const running = e.standing == "running"
  return card(e.experiment, el("p", {}, e.question), terms({
    State: el("strong", { className: running ? "good" : "bad" }, e.standing), "In now": `${percent(e.share)} of its slice`,
    For: e.segments.join(", ") || "everybody", Measures: e.metric,
    Variants: list(e.variants.map(v => [el("strong", {}, v.name), ` weight ${v.weight}`,
      v.show.length ? `, shows ${v.show.join(", ")}` : null, v.hide.length ? `, hides ${v.hide.join(", ")}` : null])),
  }), e.figures ? figures(e.figures) : el("p", { className: "soft" }, "No figures yet: ",
    el("code", {}, "python -m monitoring experiments"), " writes them."))
}

const points = x => `${x > 0 ? "+" : ""}${(100 * x).toFixed(1)}`

function figures(f) {
  const row = c => el("tr", {}, el("th", { scope: "row" }, `${c.treatment}: ${c.metric}`,
    el("small", {}, c.segment || "everybody", `, ${c.people.toLocaleString("en")} people`)),
    el("td", { className: "n" }, c.effect == null ? "too few people yet"
      : `${points(c.effect)} points (${points(c.low)} to ${points(c.high)}) on ${percent(c.control)}`))
  const exposed = Object.entries(f.exposed).map(([name, n]) => `${name} ${n.toLocaleString("en")}`).join(", ")
  return el("table", {}, el("caption", {}, "Against control, as of ", clock(new Date(f.at_us / 1000).toISOString())),
    el("tbody", {}, f.overall.map(row), f.segments.filter(c => c.effect != null).map(row),
      el("tr", {}, el("th", { scope: "row" }, "Exposed"), el("td", { className: "n" }, exposed))))
}
