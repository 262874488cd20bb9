// Who is where, and who moves: GET /v1/segments for the start, then its stream.
import { ask, chips, clock, el, follow, link, problem, whose } from "./api.js"

const SOURCES = { rules: "By rules", engagement: "By engagement", personas: "Personas" }
const MOST = 50

export async function overview(main, signal) {
  const counts = el("div", { className: "grid" }), moves = el("ol", { className: "plain" })
  const state = el("span", { role: "status", className: "soft" }, "connecting")
  const log = el("div", { role: "log", ariaLabel: "Moves" }, moves)
  const pause = el("button", { className: "quiet", ariaPressed: "false" }, "Pause")
  main.append(el("h1", {}, "Who is where"), counts,
    el("div", { className: "row" }, el("h2", {}, "Who moves"), pause, state),
    log)
  let people, held = []
  pause.onclick = () => {
    const on = pause.ariaPressed != "true"
    pause.ariaPressed = String(on)
    if (!on) held.splice(0).forEach(take)
  }
  const take = change => {
    if (pause.ariaPressed == "true") return held.push(change)
    const at = `${change.source}/${change.segment}`
    people.set(at, (people.get(at) || 0) + (change.entered ? 1 : -1))
    moves.prepend(move(change))
    if (moves.children.length > MOST) moves.lastChild.remove()
    draw(counts, people)
  }
  while (!signal.aborted) {
    try {
      const now = await ask("v1/segments", { signal })
      people = new Map(now.segments.map(s => [`${s.source}/${s.segment}`, s.people]))
      draw(counts, people)
      log.ariaLive = "off" // what was there before is not read out
      moves.replaceChildren(...now.changes.map(move))
      setTimeout(() => { log.ariaLive = "polite" })
      state.textContent = "live"
      for await (const { event, data } of follow(`v1/segments/stream?after=${now.seq}`, signal)) {
        if (event == "reset") break
        take(data)
      }
    } catch (e) {
      if (signal.aborted) return
      if (e.status == 401 || e.status == 403) return state.replaceWith(problem(e))
      state.textContent = `${e.message}; trying again`
    }
    await new Promise(next => setTimeout(next, 2000))
  }
}

function draw(counts, people) {
  const most = Math.max(1, ...people.values())
  counts.replaceChildren(...Object.entries(SOURCES).map(([source, title]) => {
    const rows = [...people].filter(([at, n]) => at.startsWith(`${source}/`) && n > 0).sort((a, b) => b[1] - a[1])
    return el("section", { className: "card" }, el("table", {}, el("caption", {}, title),
      el("tbody", {}, rows.length ? rows.map(([at, n]) => row(at.slice(source.length + 1), n, most))
        : el("tr", {}, el("td", { className: "soft" }, "nobody")))))
  }))
}

function row(segment, n, most) {
  const bar = el("div", { className: "bar" })
  bar.style.width = `${100 * n / most}%`
  return el("tr", {}, el("th", { scope: "row" }, segment, bar), el("td", { className: "n" }, n.toLocaleString("en")))
}

function move(c) {
  return el("li", { className: "new" }, clock(c.at), " ", link(whose(c)), c.entered ? " entered " : " left ",
    chips([c.segment]), c.correctsSeq != null && el("strong", {}, "correction "),
    el("div", { className: "soft" }, c.cause))
}
