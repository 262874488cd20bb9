// Firstmile in a browser: <script src="https://<the service>/firstmile.js" data-key="<write key>" defer></script>
//
// Sends pages, clicks and forms, and never what somebody typed. firstmile.track(name, properties),
// firstmile.page(name, properties), firstmile.identify(id, traits, userHash), firstmile.reset() at a log-out,
// firstmile.optOut() and firstmile.optIn(). With Do-Not-Track or after optOut() nothing is sent or stored.
(() => {
  const d = document, n = navigator, me = d.currentScript
  const to = new URL("v1/batch", me.src).href
  const uid = () => crypto.getRandomValues(new Uint32Array(4)).join("-")

  // What lasts is in localStorage or, where that is closed to us, in a cookie; null forgets it.
  const our = "firstmile."
  const get = k => {
    try { return localStorage[our + k] }
    catch { return decodeURIComponent(d.cookie.match(our + k + "=([^;]*)")?.[1] || "") }
  }
  const set = (k, v) => {
    try { v === null ? delete localStorage[our + k] : localStorage[our + k] = v }
    catch { d.cookie = `${our + k}=${encodeURIComponent(v || "")};path=/;samesite=lax;max-age=${v ? 1e8 : 0}` }
  }
  const out = () => n.doNotTrack == "1" || n.globalPrivacyControl || get("out") == "1"

  // Events wait in the tab's own storage until they have been answered; one that is sent twice counts once.
  let queue = [], timer, tries = 0
  try { queue = JSON.parse(sessionStorage[our + "queue"]) } catch {}
  const save = () => { try { sessionStorage[our + "queue"] = JSON.stringify(queue) } catch {} }
  const body = batch => JSON.stringify({ writeKey: me.dataset.key, sentAt: new Date(), batch })
  const later = ms => { timer ||= setTimeout(flush, ms) }
  const flush = async () => {
    const batch = queue.slice(0, 20)
    if (batch.length && !out()) try {
      const answer = await fetch(to, { method: "POST", keepalive: true, body: body(batch) }), { status } = answer
      await answer.text() // an answer that may not be stored is over for the browser only once it is read
      if (status > 499 || status == 429 || status == 408) throw 0
      queue = queue.filter(e => !batch.includes(e))
      tries = 0
      save()
    } catch { tries++ }
    timer = 0
    if (queue.length) later(tries && Math.min(6e4, 500 * 2 ** tries))
  }
  addEventListener("pagehide", () => { queue.length && !out() && n.sendBeacon(to, body(queue.slice(0, 50))) })

  const send = (type, more) => {
    if (out()) return
    const anonymousId = get("id") || uid()
    set("id", anonymousId)
    queue.push({
      type, anonymousId, userId: get("user") || null, messageId: uid(), timestamp: new Date(), context: {
        page: { url: location.href, path: location.pathname, title: d.title, referrer: d.referrer },
        userHash: get("hash") || undefined, locale: n.language, timezone: Intl.DateTimeFormat().resolvedOptions().timeZone
      }, ...more
    })
    queue = queue.slice(-500)
    save()
    later(200)
  }
  const track = (event, properties) => send("track", { event, properties })
  const page = (name, properties) => send("page", { name, properties })
  const reset = () => { for (const k of ["id", "user", "hash"]) set(k, null) }
  window.firstmile = {
    track, page, reset, optIn: () => set("out", null),
    optOut: () => { queue = []; save(); reset(); set("out", "1") },
    identify: (id, traits, hash) => {
      if (!out()) { set("user", id); set("hash", hash || null) }
      send("identify", { userId: id, traits })
    }
  }

  // A thing is called as data-firstmile says, else by its id, its name, where it leads, or what it is.
  const called = t =>
    ["data-firstmile", "id", "name"].map(a => t.getAttribute(a)).find(a => a) || t.pathname || t.localName
  const empty = f => f.type == "checkbox" ? !f.checked : !f.value
  const on = (type, act) => d.addEventListener(type, act, true)
  on("click", e => {
    const t = e.target.closest("[data-firstmile]:not(form),button,a[href],[type=submit]")
    if (t) track("Clicked", { target: called(t) })
  })
  on("submit", e => {
    const fields = [...e.target.elements].filter(f => f.name && !/hidden|submit|button|radio/.test(f.type))
    const fields_empty = fields.filter(empty).length
    track("Form Submitted", { form: called(e.target), fields: fields.length, fields_empty })
  })
  // Fields one by one only in forms that have data-firstmile.
  on("change", e => {
    const f = e.target, form = f.form
    if (f.name && form && "firstmile" in form.dataset)
      track("Field Changed", { form: called(form), field: f.name, empty: empty(f) })
  })

  const push = history.pushState
  history.pushState = function () { push.apply(this, arguments); page() }
  addEventListener("popstate", () => page())
  page()
  later(0)
})()
