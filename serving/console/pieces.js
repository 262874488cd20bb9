// The elements of a policy as small pieces of an interface, by their kind. `act(name)` tells what became of one.
import { el } from "./api.js"

const TOUR = ["The board: drag a card, or add one.", "Files: what you upload is on every card.", "Publish, and the link is live."]

// The five things of the checklist, each with the event that ticks it off.
export const STEPS = { "Sign up": "Signed Up", "Use two features": "Feature Used", "Upload a file": "File Uploaded",
  "Invite somebody": "Invitation Sent", "Publish the project": "Project Published" }

export const ticked = (event, done) => (done[event] || 0) > (event == "Feature Used" ? 1 : 0)

const KINDS = {
  guided_tour(act) {
    const text = el("p", {}, TOUR[0])
    let at = 0
    const next = el("button", { onclick() {
      act("Clicked")
      if (++at == TOUR.length) return act("Completed")
      text.textContent = TOUR[at]
      if (at == TOUR.length - 1) next.textContent = "Finish the tour"
    } }, "Next")
    return [text, next]
  },
  checklist(act, done) {
    return [el("ul", { className: "plain" }, Object.entries(STEPS).map(([step, event]) => {
      const ready = ticked(event, done)
      return el("li", { className: ready ? "done" : "" }, ready ? "✓ " : "○ ", step, ready && el("small", {}, " (done)"))
    }))]
  },
  content: act => [el("div", { className: "tiles", ariaHidden: "true" }, [0, 1, 2].map(() => el("span"))),
    once(act, "Open one")],
  form: act => [el("p", {}, "Two colleagues of your domain: ana@example.org, ben@example.org"), once(act, "Invite both")],
  help_offer: act => [el("p", {}, "Something in the way? A person answers within minutes."), once(act, "Talk to a person")],
  banner: act => [once(act, "Publish in one click")],
  message: act => [el("p", {}, "This would come by mail, tomorrow."), once(act, "Read it")],
  hint: act => [el("p", {}, "↑ Try it with our example file."), once(act, "Show me")],
  skip_step: act => [el("p", {}, "Steps that you do not need are left out."), once(act, "Fine")],
}

const once = (act, text) => el("button", { onclick() { act("Clicked"); act("Completed") } }, text)

// One element. act: told Clicked, Completed or Dismissed. done: how often each event has happened.
export function piece({ element, kind, title }, act, done) {
  const close = el("button", { className: "quiet", ariaLabel: `Dismiss: ${title}`, "data-firstmile": `dismiss-${element}`,
    onclick: () => act("Dismissed") }, "Dismiss")
  const made = el("article", { className: `card piece ${kind}`, ariaLabel: title, "data-element": element },
    el("small", {}, kind.replace("_", " ")), el("h3", {}, title), KINDS[kind](act, done))
  made.append(close)
  return made
}
