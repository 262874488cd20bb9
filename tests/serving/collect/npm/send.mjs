// One SDK sends the same few events: node send.mjs segment|rudderstack|mixpanel URL KEY
import { Analytics } from "@segment/analytics-node"
import RudderAnalytics from "@rudderstack/rudder-sdk-node"
import Mixpanel from "mixpanel"

const [sdk, url, key] = process.argv.slice(2)
const at = new Date("2026-05-01T09:30:00.123Z")
const common = { userId: "u-1", timestamp: at }

const calls = client => {
  client.identify({ ...common, messageId: "m1", traits: { plan: "pro" } })
  client.track({ ...common, messageId: "m2", anonymousId: "a-1", event: "Feature Used", properties: { feature: "board" } })
  client.page({ ...common, messageId: "m3", name: "Start" })
  client.group({ ...common, messageId: "m4", groupId: "g-1" })
  client.alias({ ...common, messageId: "m5", previousId: "a-0" })
}

if (sdk === "segment") {
  const client = new Analytics({ writeKey: key, host: url })
  client.on("error", error => { throw new Error(JSON.stringify(error)) })
  calls(client)
  await client.closeAndFlush({ timeout: 10000 })
} else if (sdk === "rudderstack") {
  const client = new RudderAnalytics(key, { dataPlaneUrl: url, flushInterval: 50, logLevel: "error" })
  calls(client)
  await client.flush()
} else {
  const { hostname, port } = new URL(url)
  const client = Mixpanel.init(key, { host: `${hostname}:${port}`, protocol: "http" })
  const told = call => new Promise((done, failed) => call(error => error ? failed(error) : done()))
  await told(done => client.track("Clicked", { distinct_id: "u-1", $user_id: "u-1", $insert_id: "m1", time: at, feature: "board" }, done))
  await told(done => client.people.set("u-1", { plan: "pro" }, done))
}
