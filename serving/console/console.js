// The shell: which page the address asks for, the search field, and the key of this tab.
import { called, key } from "./api.js"
import { overview } from "./overview.js"
import { playbook } from "./playbook.js"
import { user } from "./user.js"

const main = document.getElementById("main")
let leave = new AbortController()

function route(focus) {
  leave.abort()
  leave = new AbortController()
  const [, page = "", id = ""] = location.hash.split("/")
  const who = { kind: page, id: decoded(id) }, one = page == "users" || page == "anonymous"
  main.replaceChildren()
  for (const a of document.querySelectorAll("nav a")) {
    a.getAttribute("href") == `#/${page}` ? a.setAttribute("aria-current", "page") : a.removeAttribute("aria-current")
  }
  document.title = `${one ? called(who) : page == "playbook" ? "Rules and experiments" : "Overview"} · Firstmile`
  if (one) user(main, leave.signal, who)
  else (page == "playbook" ? playbook : overview)(main, leave.signal)
  if (focus) main.focus()
}

const decoded = id => { try { return decodeURIComponent(id) } catch { return id } }

document.getElementById("find").onsubmit = e => {
  e.preventDefault()
  const kind = e.target.anonymous.checked ? "anonymous" : "users"
  location.hash = `#/${kind}/${encodeURIComponent(e.target.who.value.trim())}`
}
document.getElementById("key").value = key.get()
document.getElementById("keyform").onsubmit = e => {
  e.preventDefault()
  key.set(e.target.key.value.trim())
  route(true)
}
document.querySelector(".skip").onclick = e => { e.preventDefault(); main.focus() }
addEventListener("hashchange", () => route(true))
route(false)
