// Notable: what somebody does here goes out through our snippet, and each time the service is asked what to show next.
import { Problem, ask, chips, el, inWords, key, list, terms } from "./api.js"
import { STEPS, piece, ticked } from "./pieces.js"

const $ = id => document.getElementById(id)
const kept = sessionStorage, HINT = "Open “Keys” below."
const COUNTS = /^(per_session|per_day|ever|cool_down)$/ // boundaries on showing it again: what is on the screen stays
const made = new URLSearchParams(location.search).get("user")
let book, done = JSON.parse(kept["notable.done"] || "{}"), asked = 0, wanted = false, began = 0
const shown = new Map() // element -> the decision that brought it
const silent = () => opted() || navigator.doNotTrack == "1" || navigator.globalPrivacyControl

const user = kept["notable.user"] ||= made || localStorage["firstmile.user"] || `demo-${crypto.randomUUID().slice(0, 8)}`
const opted = () => kept["notable.out"] == "1"

// A thing that was done: an event, and something to see.
function did(event, properties, words) {
  done[event] = (done[event] || 0) + 1
  kept["notable.done"] = JSON.stringify(done)
  firstmile.track(event, properties)
  $("note").textContent = words
  const whole = Object.values(STEPS).every(e => ticked(e, done))
  for (const name of [...shown.keys()]) if (kind(name) == "checklist") whole ? act(name, "Completed") : put(name)
}
const use = (feature, words) => () => did("Feature Used", { feature }, words)
const button = (text, act, quiet) => el("button", { className: quiet ? "quiet" : "", onclick: act }, text)

const BOARD = { Ideas: "A name for it", Doing: "The first page", Done: "Ask five customers" }

const PAGES = {
  Board: () => [
    el("div", { className: "board" }, Object.entries(BOARD).map(([c, card]) => el("div", {}, c, el("p", {}, card)))),
    el("div", { className: "row" }, button("Add a card", () => {
      document.querySelector(".board div").append(el("p", { className: "new" }, "A new card"))
      did("Feature Used", { feature: "board" }, "A card was added.")
    }),
      button("Comment", use("comments", "Your comment is there.")), button("Plan the week", use("calendar", "The week is planned.")),
      button("Automate", use("automation", "Cards now move by themselves.")),
      button("Export (broken)", () => did("Error Shown", { status: 500 }, "Error 500: the export failed. Please try again."), true),
      button("Publish the project", () => did("Project Published", {}, "It is live."))),
    done["Signed Up"] ? null : signup(),
  ],
  Files: () => [el("form", { className: "stack", id: "upload", onsubmit(e) {
    e.preventDefault()
    did("File Uploaded", { bytes: e.target.file.files[0]?.size ?? 0 }, "The file is on your board.")
  } }, el("label", { htmlFor: "file" }, "A file (its size is sent, nothing else)"),
    el("input", { type: "file", id: "file", name: "file", required: true }), el("button", {}, "Upload"))],
  Team: () => [el("form", { className: "stack", id: "invite", onsubmit(e) {
    e.preventDefault()
    did("Invitation Sent", { role: e.target.role.value }, "The invitation is on its way.")
    e.target.reset()
  } }, el("label", { htmlFor: "mail" }, "Their address (never sent anywhere)"),
    el("input", { type: "email", id: "mail", name: "mail", required: true, autocomplete: "off" }),
    ...roles("Their role"), el("button", {}, "Invite"))],
  Help: () => [el("p", {}, "What are you looking for?"), el("div", { className: "row" }, ["Cards", "Sharing", "Billing"].map(t =>
    button(t, () => did("Help Opened", { topic: t }, `${t}: a page of help would open.`), true)))],
}
const roles = label => [el("label", { htmlFor: "role" }, label), el("select", { id: "role", name: "role" },
  ["designer", "developer", "manager"].map(r => el("option", {}, r)))]

function signup() {
  return el("form", { className: "row", id: "signup", onsubmit(e) {
    e.preventDefault()
    const traits = { plan: "free", role: e.target.role.value }
    firstmile.identify(user, traits)
    did("Signed Up", { plan: "free", fields_empty: 0 }, "Welcome to Notable.")
    e.target.remove()
  } }, ...roles("Your role"), el("button", {}, "Sign up, free"))
}

function page() {
  const name = PAGES[location.hash.slice(1)] ? location.hash.slice(1) : "Board"
  $("pages").replaceChildren(...Object.keys(PAGES).map(p => {
    const a = el("a", { href: `#${p}` }, p)
    if (p == name) a.setAttribute("aria-current", "page")
    return a
  }))
  $("page").replaceChildren(el("h1", {}, name), ...PAGES[name]().filter(Boolean), el("p", { id: "note", role: "status" }))
}

// What the policy says, on the screen.
const kind = name => book.elements.find(e => e.element == name).kind
function put(name) {
  const about = book.elements.find(e => e.element == name)
  const fresh = piece(about, what => act(name, what), done)
  const was = document.querySelector(`[data-element="${name}"]`)
  was ? was.replaceWith(fresh) : $(about.kind == "banner" ? "top" : "shown").append(fresh)
}
function act(name, what) {
  firstmile.track(`Element ${what}`, { element: name, decision_id: shown.get(name) })
  if (what != "Clicked") gone(name)
  kept["notable.shown"] = JSON.stringify([...shown])
}
function gone(name) {
  const it = document.querySelector(`[data-element="${name}"]`), focused = it.contains(document.activeElement)
  it.remove()
  shown.delete(name)
  if (focused) $("product").focus()
}

function show(d, ms) {
  const stays = [...shown.keys()].filter(n => d.dropped.some(x => x.element == n && COUNTS.test(x.boundary)))
  const now = [...d.elements, ...stays.slice(0, Math.max(0, book.atOnce - d.elements.length))]
  const left = [...shown.keys()].filter(n => !now.includes(n)), come = d.elements.filter(n => !shown.has(n))
  left.forEach(gone)
  for (const name of come) {
    shown.set(name, d.decisionId)
    put(name)
    firstmile.track("Element Shown", { element: name, decision_id: d.decisionId })
  }
  for (const { experiment, variant } of d.experiments) {
    if (kept[`notable.seen.${experiment}`] == variant) continue
    kept[`notable.seen.${experiment}`] = variant
    firstmile.track("Experiment Viewed", { experiment_id: experiment, variation_id: variant, decision_id: d.decisionId })
  }
  kept["notable.shown"] = JSON.stringify([...shown])
  const title = n => book.elements.find(e => e.element == n).title
  $("said").textContent = [come.length && `New: ${come.map(title).join("; ")}.`, left.length && `Gone: ${left.map(title).join("; ")}.`,
    !come.length && !left.length && "Nothing changed.", silent() && "Nothing is collected of you.", `Decided in ${Math.round(ms)} ms.`].filter(Boolean).join(" ")
  $("why").replaceChildren(
    el("p", {}, d.segments.length ? chips(d.segments) : "in no segment yet"), list(d.reasons), terms({
      ...inWords(d), Dropped: list(d.dropped.map(x => `${x.element}: ${x.detail} (${x.boundary})`)),
      Experiments: d.experiments.map(x => `${x.experiment}: ${x.variant}`).join(", "),
      Holdout: d.holdout ? "yes: this person is always shown the default journey. Start as somebody new to see it adapt." : null,
      Receipt: el("code", {}, d.decisionId) }))
}

async function decide() {
  const mine = ++asked, from = performance.now()
  try {
    if (!book) {
      book = await ask("v1/playbook")
      for (const [name, by] of JSON.parse(kept["notable.shown"] || "[]")) { shown.set(name, by); put(name) }
    }
    const d = await ask("v1/decide", { method: "POST", body: { userId: user, explain: true } })
    if (mine == asked) show(d, performance.now() - from)
  } catch (e) {
    $("said").textContent = e instanceof Problem && (e.status == 401 || e.status == 403) ? `${e.message}. ${HINT}` : e.message
  }
}

// The snippet's events have been answered: time to ask again, if somebody did something since.
new PerformanceObserver(found => {
  const sent = found.getEntries().filter(e => e.name.endsWith("/v1/batch"))
  const refused = sent.find(e => e.responseStatus == 401 || e.responseStatus == 403)
  if (refused) $("said").textContent = `Events are refused (${refused.responseStatus}). ${HINT}`
  else if (sent.length && wanted) {
    wanted = JSON.parse(kept["firstmile.queue"] || "[]").some(e => Date.parse(e.timestamp) >= began && !/Shown|Viewed/.test(e.event))
    decide()
  }
}).observe({ type: "resource" })
for (const type of ["click", "submit", "hashchange"]) addEventListener(type, () => { wanted = true; began = Date.now() }, true)

function begin() {
  $("person").href = `../console#/users/${encodeURIComponent(user)}`
  $("person").textContent = `${user} in the console`
  if (!opted()) firstmile.identify(user)
}

$("out").checked = opted()
$("out").onchange = async e => {
  const out = e.target.checked
  try {
    await ask(`v1/users/${encodeURIComponent(user)}/opt-out`, { method: out ? "PUT" : "DELETE" })
    kept["notable.out"] = out ? "1" : ""
    out ? firstmile.optOut() : firstmile.optIn()
    begin()
    decide()
  } catch (problem) {
    e.target.checked = !out
    $("said").textContent = problem.message
  }
}
$("new").onclick = () => {
  asked = NaN // no answer that still comes counts
  firstmile.optIn()
  firstmile.reset()
  for (const k of Object.keys(kept)) if (/^(notable|firstmile)\./.test(k)) delete kept[k]
  location.assign(location.pathname)
}
$("keyform").onsubmit = e => {
  e.preventDefault()
  key.set(e.target.key.value.trim())
  kept["console.write"] = e.target.write.value.trim()
  location.reload()
}
$("key").value = key.get()
$("write").value = kept["console.write"] || ""
document.querySelector(".skip").onclick = e => { e.preventDefault(); $("product").focus() }

const snippet = el("script", { src: "../firstmile.js" })
snippet.dataset.key = kept["console.write"] || ""
snippet.onload = () => {
  page()
  addEventListener("hashchange", page)
  wanted = true
  begin()
  if (silent()) decide()
}
document.head.append(snippet)
